"""`python -m lab`: what every make target calls."""

import sys

from lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
