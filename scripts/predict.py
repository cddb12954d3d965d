"""Say what is on pictures; see --help."""

from minicnn_door import main

if __name__ == "__main__":
    main(command="predict")
