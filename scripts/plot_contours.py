"""`jaxood contours` as a script."""

import sys

from jaxood.cli import main

if __name__ == "__main__":
    sys.exit(main("contours", sys.argv[1:], prog="plot_contours.py"))
