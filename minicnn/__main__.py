"""The commands, as `python -m minicnn`."""

from minicnn.cli.main import main

if __name__ == "__main__":
    main()
