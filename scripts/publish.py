"""Ship the weights of a run with the package; see --help."""

from minicnn.cli.main import main

if __name__ == "__main__":
    main(command="publish")
