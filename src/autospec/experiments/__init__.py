"""The paper's experiments: configuration, data sets, networks, training, runs, reports; all that needs Hydra."""
