"""FreeSurfer measures: tables, stats folders, and the simulated default."""
