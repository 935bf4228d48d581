"""Ctrl-C: the first one ends a sweep in order, the second one ends everything at once."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator

EXIT_STATUS = 130  # as shells have it: 128 and the number of the signal
SHOW_CURSOR = b"\x1b[?25h"  # the live panel hides it


def handle() -> None:
    """From now on the first Ctrl-C raises KeyboardInterrupt, and the second one does not ask.

    An exception alone would not do: libraries may swallow it, and what cleans up after the first
    one may hang. Where Ctrl-C is ignored, as by a job in the background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _first)


def _first(*_) -> None:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(*_) -> None:
    for process in multiprocessing.active_children():
        process.kill()
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR)
    os._exit(EXIT_STATUS)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """What is started in here, and all that it starts, never hears of Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
