"""A methods paragraph of a run: the same as ``autospec methods``, whose --help explains it."""

from autospec.experiments.report.methods_command import main

if __name__ == "__main__":
    main()
