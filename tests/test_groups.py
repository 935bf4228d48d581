"""The groups of `tests/run` leave out no file of tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files(words: str) -> set[Path]:
    """What a group of tests collects, of the files of tests."""
    found: set[Path] = set()
    ignored: set[Path] = set()
    for word in words.split():
        if word.startswith("--ignore-glob="):
            ignored |= set(ROOT.glob(f"{word.partition('=')[2]}/**/test_*.py"))
            ignored |= set(ROOT.glob(f"{word.partition('=')[2]}.py"))
        elif not word.startswith("-"):
            for path in ROOT.glob(word):
                found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    return {path for path in found - ignored if path.name.startswith("test_")}


def test_every_file_of_tests_is_in_exactly_one_group_on_tensorflow():
    text = (ROOT / "tests" / "run").read_text("utf-8")
    usual = text.partition("groups=(")[2].partition("\n)")[0]
    groups = [files(words) for words in re.findall(r'"tensorflow\|\$usual\|(.*)"', usual)]
    assert len(groups) > 5 and all(groups)
    every = [path for group in groups for path in group]
    assert len(every) == len(set(every))
    assert set(every) == set((ROOT / "tests").rglob("test_*.py"))
