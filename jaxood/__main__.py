"""`python -m jaxood`: the console command."""

from jaxood.cli import entry

if __name__ == "__main__":
    entry()
