"""`make doctor`: what this machine has, and what stands in the way."""

import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lab.claims import discovery
from lab.machine import devices
from lab.sweeps.running import unwritable

OLDEST, NEWEST = (3, 10), (3, 13)
FREE_GB = 1


def examine(results: Path) -> int:
    """Print one line per finding; exit status 1 if something stands in the way."""
    problems = 0
    for good, text in [_python(), *_packages(), _devices(), _disk(), _folder(results), _data()]:
        print(f"{'ok  ' if good else 'BAD '} {text}")
        problems += not good
    print("All is well." if not problems else f"{problems} to mend, marked BAD.")
    return 1 if problems else 0


def _python():
    good = OLDEST <= sys.version_info[:2] <= NEWEST
    return good, f"Python {platform.python_version()} (3.10 to 3.13 are supported)"


def _packages():
    extras = {"jax.txt": ("jax", "BACKEND=jax"), "ray.txt": ("ray", "LAUNCHER=ray")}
    for file in ("run.txt", *extras):
        pins = (discovery.ROOT / "requirements" / file).read_text("utf-8").splitlines()
        wrong, right = [], 0
        for line in pins:
            match = re.match(r"([\w.-]+)==([^\s;]+)\s*(?:;\s*(.*))?", line)
            if match and _applies(match[3]):
                have = _installed(match[1])
                right += have == match[2]
                if have != match[2]:
                    wrong.append(f"{match[1]} is {have or 'absent'}, pinned {match[2]}")
        package, option = extras.get(file, ("", ""))
        if package and _installed(package) is None:
            yield True, f"{package} is not installed ({option} installs it)"
        else:
            shown = f"{right} packages of requirements/{file} as pinned"
            yield not wrong, "; ".join([shown, *wrong[:5]])


def _applies(marker: str | None) -> bool:
    from packaging.markers import Marker

    return marker is None or Marker(marker).evaluate()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices():
    return True, f"{devices.described()}; {platform.machine()} {platform.system()}"


def _disk():
    free = shutil.disk_usage(".").free / 1e9
    return free > FREE_GB, f"{free:.0f} GB free on this disk ({FREE_GB} GB is enough)"


def _folder(results: Path):
    problem = unwritable(results)
    return not problem, problem or f"{str(results)!r} can be written"


def _data():
    from lab.data.loading import names

    return True, f"data sets at hand: {', '.join(sorted(names()))}"
