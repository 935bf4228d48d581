"""What tests of engines beside `model.fit` share."""

import numpy as np
import pytest

from lab.engines import training


@pytest.fixture
def in_order(monkeypatch):
    """Engines visit the examples as they lie, so that `model.fit(shuffle=False)` does the same."""
    monkeypatch.setattr(training, "batch_order", lambda seed, epoch, n: np.arange(n))
