"""From a command line to jobs: one run, a sweep, a cluster."""
