"""Make a prepared cohort out of a folder of scans; ``python scripts/prepare_cobre.py --help`` says how."""

from autospec.cohorts.prepare_command import main

if __name__ == "__main__":
    main()
