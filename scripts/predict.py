"""Say what is on pictures; see --help."""

from door import main

if __name__ == "__main__":
    main(command="predict")
