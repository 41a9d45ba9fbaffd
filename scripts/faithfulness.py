"""`jaxood faithfulness` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("faithfulness", sys.argv[1:], prog="faithfulness.py")
