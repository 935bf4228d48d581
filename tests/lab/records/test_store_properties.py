"""Any rows come back as they were, and any bytes are rows of the trial or refused."""

import hashlib
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.claims.vocabulary import Setting
from lab.records import store
from lab.records.store import Broken, Key
from lab.sweeps.trial import METRIC

quietly = settings(deadline=None, database=None, derandomize=True, max_examples=100)
KEY = Key("toy", Setting("smoke", "digits", "none", "tensorflow"), "small", 3)
metrics = st.from_regex(METRIC, fullmatch=True)
numbers = st.floats(allow_nan=True, allow_infinity=True)
rows = st.lists(
    st.tuples(st.none() | st.integers(1, 10**6), metrics, numbers),
    unique_by=lambda row: row[:2],
    max_size=8,
)
cells = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "1", "٣", "1_0", "-1", "1e999", "nan", "0x1", "9" * 5000, '"', "\n", "\0", "a,b", "=1+1"]
)


@settings(quietly, max_examples=30)  # each is synced to the disk
@given(rows)
def test_rows_come_back_to_the_last_bit(tmp_path_factory, wanted):
    folder = tmp_path_factory.getbasetemp() / "round"
    store.save(folder, KEY, wanted, {"status": "done"})
    manifest, found = store.read(folder, KEY)
    assert manifest["rows"] == len(found) and repr(found) == repr(wanted)


def believed(monkeypatch, content, count):
    """What the reader says of bytes whose checksum and number of rows are right."""
    manifest = {"rows": count, "sha256": hashlib.sha256(content).hexdigest()}
    with monkeypatch.context() as patched:
        patched.setattr(store, "_load", lambda *_: (manifest, content))
        try:
            return store.read(None, KEY)[1]
        except Broken as refused:
            assert re.search(r"seed-3\.csv", str(refused))
            return None


@pytest.mark.parametrize("kind", ["bytes", "cells"])
def test_whatever_is_read_is_of_this_trial_and_nothing_else_is_raised(monkeypatch, kind):
    header = ",".join(store.COLUMNS)
    own = ",".join(KEY.cells)
    lines = st.lists(st.lists(cells, min_size=3, max_size=3).map(",".join), max_size=4)
    contents = {
        "bytes": st.binary(max_size=80) | st.binary(max_size=40).map(header.encode().__add__),
        "cells": lines.map(
            lambda some: "\n".join([header, *(f"{own},{line}" for line in some)]).encode()
        ),
    }

    @quietly
    @given(contents[kind], st.integers(0, 4))
    def check(content, count):
        found = believed(monkeypatch, content, count)
        if found is not None:
            assert len(found) == count
            for epoch, metric, value in found:
                assert epoch is None or isinstance(epoch, int)
                assert isinstance(metric, str) and isinstance(value, float)

    check()
    good = f"{header}\n{own},1,loss,nan\n".encode()
    (row,) = believed(monkeypatch, good, 1)
    assert row[:2] == (1, "loss") and math.isnan(row[2])
