"""`jaxood road` as a script."""

import sys

from jaxood.cli import main

if __name__ == "__main__":
    sys.exit(main("road", sys.argv[1:], prog="road.py"))
