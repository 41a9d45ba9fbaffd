"""`jaxood attribute` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("attribute", sys.argv[1:], prog="attribute.py")
