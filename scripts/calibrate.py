"""Calibrate every test (`make calibrate`); --help explains it."""

from autospec.experiments.validation.calibrate_command import main

if __name__ == "__main__":
    main()
