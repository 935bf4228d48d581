"""Which stale trials were kept on purpose (`KEEP_STALE=1`), written beside them for the report.

The note names fingerprints, so a trial that is run again is no longer meant by it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from lab.claims.vocabulary import Setting
from lab.machine import files

FILE = "kept.json"


def write(results: Path, experiment: str, setting: Setting, why: Mapping[str, str]) -> None:
    """Note the fingerprints that are kept, each with what changed since; none removes the note.

    Raises:
        OSError: With the path, if it cannot be written.
    """
    path = _path(results, experiment, setting)
    if why:
        files.write_atomically(path, json.dumps(why, indent=1, sort_keys=True).encode())
    else:
        files.remove(path)


def read(results: Path, experiment: str, setting: Setting) -> dict[str, str]:
    """The note; empty where there is none that can be read: then nothing counts as kept."""
    try:
        found = json.loads(files.content(_path(results, experiment, setting)).decode("utf-8"))
    except (files.Broken, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(why, str) for why in found.values()):
        return {}
    return found


def _path(results: Path, experiment: str, setting: Setting) -> Path:
    return results / experiment / setting.folder / FILE
