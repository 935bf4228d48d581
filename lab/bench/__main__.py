"""`python -m lab.bench`: what `make bench` calls."""

import sys

from lab.bench.timing import main

if __name__ == "__main__":
    sys.exit(main())
