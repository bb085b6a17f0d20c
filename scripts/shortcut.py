"""Plant a shortcut and see how often it is found (`make shortcut`); --help explains it."""

from autospec.experiments.validation.shortcut_command import main

if __name__ == "__main__":
    main()
