"""Train what is missing, test the groups, draw: the same as ``autospec figures``, whose --help explains it."""

from autospec.experiments.report.figures_command import main

if __name__ == "__main__":
    main()
