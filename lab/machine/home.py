"""What libraries would create in the home folder goes beside the packages instead."""

import os
import sys
from pathlib import Path

KEPT = {"KERAS_HOME": ".keras", "MPLCONFIGDIR": ".config/matplotlib"}


def leave_alone() -> None:
    """Have Keras and Matplotlib keep their settings and caches in the virtual environment.

    Not where they have a folder in the home folder already, which may hold settings; and only for
    a virtual environment, which is this project's own.
    """
    own = Path(sys.prefix)
    if sys.prefix == sys.base_prefix or not os.access(own, os.W_OK):
        return
    for variable, name in KEPT.items():
        if not Path("~", name).expanduser().exists():
            os.environ.setdefault(variable, str(own / "caches" / name))
