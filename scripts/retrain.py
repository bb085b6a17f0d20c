"""Test by whole runs with permuted labels: the same as ``autospec retrain``, whose --help explains it."""

from autospec.experiments.validation.retrain_command import main

if __name__ == "__main__":
    main()
