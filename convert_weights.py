"""`jaxood convert` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("convert", sys.argv[1:], prog="convert_weights.py")
