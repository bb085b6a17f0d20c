"""Put the paper's statements to the test (`make statements`); --help explains it."""

from autospec.experiments.statements.command import main

if __name__ == "__main__":
    main()
