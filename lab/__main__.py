"""`python -m lab`: what every make target calls."""

import io
import sys

from lab.cli import main
from lab.machine import interrupt

if __name__ == "__main__":
    interrupt.handle()
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
