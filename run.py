"""AutoSpec's entry point: configuration in, experiment out. ``python run.py --help`` lists the keys."""

from pathlib import Path

from autospec.experiments.launch.command_line import main

if __name__ == "__main__":
    main(Path(__file__).parent / "conf")
