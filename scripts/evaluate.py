"""`jaxood evaluate` as a script."""

import sys

from jaxood.cli import main

if __name__ == "__main__":
    sys.exit(main("evaluate", sys.argv[1:], prog="evaluate.py"))
