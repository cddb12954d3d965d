"""One door to two commands: ``app.py -train [options of train]`` and ``app.py -image PATH [options of predict]``."""

import sys

from door import main

if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "-train"], "train" if "-train" in sys.argv else "predict")
