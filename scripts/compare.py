"""Lay finished runs beside each other; see --help."""

from door import main

if __name__ == "__main__":
    main(command="compare")
