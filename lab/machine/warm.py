"""Imported once, by the server that workers are forked from: each then starts with Keras loaded.

The server does nothing but import, so no thread and no state of a backend is lost in a fork; the
environment that a backend reads when it is imported is already the workers' own.
"""

import ctypes
import os
import signal

# While it imports, for seconds, the server would not see that the driver has ended.
PR_SET_PDEATHSIG = 1  # of Linux, where alone there is such a server; not handed on to its forks
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

# What TensorFlow says of the processor while it is imported belongs in no terminal.
_kept = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import keras  # noqa: F401
finally:
    os.dup2(_kept, 2)
    os.close(_kept)
    os.close(_nowhere)
