"""Find a learning rate; see --help."""

from door import main

if __name__ == "__main__":
    main(command="find-lr")
