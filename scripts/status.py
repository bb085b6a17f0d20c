"""Say how far a sweep is: the same as ``autospec status``, whose --help explains it."""

from autospec.experiments.runs.status_command import main

if __name__ == "__main__":
    main()
