"""Training of one network; knows no Hydra."""
