"""Train recipes one after another and compare them; see --help."""

from door import main

if __name__ == "__main__":
    main(command="study")
