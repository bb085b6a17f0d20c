"""The experiment's configuration: typed, checked, and turned into a run's name; no torch."""
