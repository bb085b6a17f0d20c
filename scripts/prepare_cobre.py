"""Make a prepared cohort: the same as ``autospec prepare``, whose --help explains it."""

from autospec.cohorts.prepare_command import main

if __name__ == "__main__":
    main()
