"""`jaxood contours` as a script."""

import sys

from jaxood.cli import leave

if __name__ == "__main__":
    leave("contours", sys.argv[1:], prog="plot_contours.py")
