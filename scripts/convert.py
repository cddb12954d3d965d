"""Write weights in another file format; see --help."""

from door import main

if __name__ == "__main__":
    main(command="convert")
