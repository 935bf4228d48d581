"""Every call with which something is stored fails in turn: each file is the old or the new one."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from lab.claims.vocabulary import Setting
from lab.machine import files
from lab.records import kept, store
from lab.records.store import Broken, Key
from lab.report import writing
from tests import toy_report

SETTING = Setting("quick", "digits", "mlp", "tensorflow")
KEY = Key("toy", SETTING, "small", 3)
OLD, NEW = [(1, "loss", 0.5), (None, "score", 1.0)], [(1, "loss", 0.25), (None, "score", 2.0)]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


class Disk:
    """Counts the calls that store something and lets the Nth of them fail.

    Args:
        fails_at: Number of the call, from 1; none fails by default.
        ever_after: Whether all that follow fail too: a dead disk, or a writer that was killed.
    """

    def __init__(self, monkeypatch, fails_at=0, error=errno.EIO, ever_after=False):
        self.calls, self.failed = 0, 0
        self.fails_at, self.error, self.ever_after = fails_at, error, ever_after
        for module, names in (
            (os, ("mkdir", "fsync", "chmod", "replace", "unlink")),
            (files.tempfile, ("mkstemp",)),
        ):
            for name in names:
                monkeypatch.setattr(module, name, self._failing(getattr(module, name)))
        monkeypatch.setattr(files, "open", self._open, raising=False)

    def _failing(self, real):
        def call(*args, **kwargs):
            self._count(args)
            return real(*args, **kwargs)

        return call

    def _count(self, args=()):
        self.calls += 1
        if self.calls == self.fails_at or (self.ever_after and 0 < self.fails_at < self.calls):
            self.failed += 1
            raise OSError(self.error, os.strerror(self.error), *map(str, args[:1]))

    def _open(self, handle, mode):
        file = open(handle, mode)  # noqa: SIM115  (its user closes it)
        return _File(file, self._count)


class _File:
    """A file whose writes fail in the middle, as they do on a full disk."""

    def __init__(self, file, counted):
        self.file, self.counted = file, counted

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        try:
            self.counted()
        except OSError:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise
        self.file.write(content)

    def flush(self):
        self.file.flush()
        self.counted()

    def fileno(self):
        return self.file.fileno()


def held(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in paths if path.name != ".lock"}


def rerun(folder):
    store.save(folder, KEY, NEW, {"status": "done"})


def first(folder):
    store.save(folder, Key("toy", SETTING, "large", 0), NEW, {"status": "done"})


def note(folder):
    kept.write(folder, "toy", SETTING, {"abc": "numpy changed"})


def note_removed(folder):
    kept.write(folder, "toy", SETTING, {})


def rows_of(folder):
    """What is believed of the trial; nothing if it is named as broken."""
    try:
        return store.read(folder, KEY)[1]
    except Broken as error:
        assert KEY.path in str(error)
        return None


def start(folder):
    store.save(folder, KEY, OLD, {"status": "done"})
    return folder


def packed(folder):
    store.compact(start(folder))
    return folder


def noted(folder):
    kept.write(start(folder), "toy", SETTING, {"old": "scipy changed"})
    return folder


@pytest.mark.parametrize("ever_after", [False, True], ids=["once", "ever after"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    ("prepare", "act", "believed"),
    [
        (start, rerun, (OLD, NEW, None)),
        (packed, rerun, (OLD, NEW)),
        (start, first, (OLD,)),
        (start, store.compact, (OLD,)),
        (start, note, (OLD,)),
        (noted, note, (OLD,)),
        (noted, note_removed, (OLD,)),
    ],
    ids=["rerun", "rerun of packed", "first", "compact", "note", "note again", "note removed"],
)
def test_each_file_is_the_old_or_the_new_one_and_the_error_names_it(
    tmp_path, prepare, act, believed, error, ever_after
):
    folder = prepare(tmp_path / "results")
    old = held(folder)
    shutil.copytree(folder, tmp_path / "as it was")
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        act(folder)
    new = held(folder)
    assert disk.calls >= 1 and new != old
    for number in range(1, disk.calls + 1):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "as it was", folder)
        told = None
        with pytest.MonkeyPatch.context() as patch:
            broken = Disk(patch, number, error, ever_after)
            try:
                act(folder)
            except OSError as raised:
                told = str(raised)
        assert broken.failed
        check(held(folder), old, new, told, error, orphans=ever_after)
        assert rows_of(folder) in believed
        act(folder)  # once the disk is well again
        files.remove_orphans(folder.rglob("*"))
        assert held(folder) == new


def check(now, old, new, told, error, orphans):
    """Nothing half; and what could not be written is named."""
    temporary = {path for path in now if path.endswith(".tmp")}
    assert orphans or not temporary
    for path in (old.keys() | new.keys() | now.keys()) - temporary:
        assert now.get(path) in (old.get(path), new.get(path)), path
    if told is None:
        assert now == new  # it was a call that may fail
    else:
        assert os.strerror(error) in told
        assert any(path in told for path in old.keys() | new.keys())


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """A report, trials that came since, and what the report of all will be."""
    known = {"toy": toy_report.EXPERIMENT}
    monkeypatch.setattr(writing, "_known", known.get)
    monkeypatch.setattr(writing, "_pictures", lambda *_: [])
    folder = tmp_path / "results"
    toy_report.save(folder, seeds=3)
    writing.write(folder)
    toy_report.save(folder, seeds=4)
    shutil.copytree(folder, tmp_path / "as it was")
    return folder


def each_call_of_a_report(tmp_path, folder, every):
    """Fail one in `every` pairs of call and error: of 3, each call once."""
    old = held(folder)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        writing.write(folder)
    new = held(folder)
    tried = 0
    for number in range(1, disk.calls + 1):
        for place, error in enumerate(ERRORS):
            if (number + place) % every:
                continue
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "as it was", folder)
            told = None
            with pytest.MonkeyPatch.context() as patch:
                Disk(patch, number, error)
                try:
                    writing.write(folder)
                except OSError as raised:
                    told = str(raised)
            check(held(folder), old, new, told, error, orphans=False)
            tried += 1
    writing.write(folder)
    assert held(folder) == new
    return tried


def test_a_report_that_cannot_be_written_is_the_old_or_the_new_one_in_each_file(tmp_path, reported):
    assert each_call_of_a_report(tmp_path, reported, every=60) > 5


@pytest.mark.faults
def test_a_report_survives_an_error_at_every_call(tmp_path, reported):
    assert each_call_of_a_report(tmp_path, reported, every=3) > 150
