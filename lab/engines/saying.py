"""What an engine tells when it trains otherwise than it was asked to."""

import functools
import logging

log = logging.getLogger(__name__)


@functools.cache
def say_once(how: str, reason: str) -> None:
    """Tell how it trains and why, the first time only."""
    log.warning("%s: %s.", how, reason)
