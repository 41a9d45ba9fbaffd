"""`jaxood road` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("road", sys.argv[1:], prog="road.py")
