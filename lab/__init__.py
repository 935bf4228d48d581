"""The machinery: data, plan, fit, workers, store, statistics, report, command line.

An experiment needs only these names:

```python
from lab import Claim, Contrast, Curves, Experiment, Fit, Gate, Scatter, tune
```
"""

from lab.epochs import evaluate
from lab.fit import Fit, train
from lab.once import once
from lab.tune import tune
from lab.twins import stand_in
from lab.vocabulary import (
    Claim,
    Contrast,
    Curves,
    Experiment,
    Gate,
    Heatmap,
    RankCorrelation,
    Scatter,
)

__all__ = [
    "Claim",
    "Contrast",
    "Curves",
    "Experiment",
    "Fit",
    "Gate",
    "Heatmap",
    "RankCorrelation",
    "Scatter",
    "evaluate",
    "once",
    "stand_in",
    "train",
    "tune",
]
