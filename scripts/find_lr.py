"""Find a learning rate; see --help."""

from minicnn.cli.main import main

if __name__ == "__main__":
    main(command="find-lr")
