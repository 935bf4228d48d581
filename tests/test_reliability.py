"""Every promise of `docs/reliability.md` names a test that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"


def test_each_promise_names_tests_that_there_are():
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| promise", "| ---"))]
    assert len(rows) > 40
    for row in rows:
        promise, tests, times = re.split(r" \| ", row.strip("| "))
        named = re.findall(r"`(tests/[^`:]+)(?:::(\w+))?`", tests)
        assert named, promise
        for file, function in named:
            source = (ROOT / file).read_text("utf-8")
            assert f"def {function}" in source, f"{file}::{function}"
        assert re.search(r"\d|every", times), promise
