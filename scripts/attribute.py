"""`jaxood attribute` as a script."""

import sys

from jaxood.cli import main

if __name__ == "__main__":
    sys.exit(main("attribute", sys.argv[1:], prog="attribute.py"))
