"""`jaxood evaluate` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("evaluate", sys.argv[1:], prog="evaluate.py")
