"""`jaxood convert` as a script."""

import sys

from jaxood.cli import main

if __name__ == "__main__":
    sys.exit(main("convert", sys.argv[1:], prog="convert_weights.py"))
