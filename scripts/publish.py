"""Ship the weights of a run with the package; see --help."""

from door import main

if __name__ == "__main__":
    main(command="publish")
