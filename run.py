"""The same as ``autospec run``: configuration in, experiment out. ``python run.py --help`` lists the keys."""

from autospec.experiments.launch.command_line import main

if __name__ == "__main__":
    main()
