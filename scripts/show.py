"""Draw a batch before and after augmentation; see --help."""

from door import main

if __name__ == "__main__":
    main(command="show")
