"""Show where a network looks; see --help."""

from door import main

if __name__ == "__main__":
    main(command="explain")
