"""Results of a toy whose every text is hostile."""

import pytest

from lab.figures import drawing
from lab.report import writing
from tests import toy_report


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results, and the toy among the experiments that the report knows."""
    known = {"toy": toy_report.EXPERIMENT}
    monkeypatch.setattr(writing, "_known", known.get)
    # Half of the time of a report; test_figures and what runs the command line draw real ones.
    monkeypatch.setattr(drawing, "png", lambda figure: b"")
    toy_report.save(tmp_path)
    return tmp_path


@pytest.fixture
def undrawn(results, monkeypatch):
    """The same where no figure matters: they are most of the time of a report."""
    monkeypatch.setattr(writing, "_pictures", lambda *_: [])
    return results
