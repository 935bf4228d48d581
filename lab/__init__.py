"""The machinery: data, plan, fit, workers, store, statistics, report, command line.

An experiment needs only these names:

```python
from lab import Claim, Contrast, Curves, Experiment, Fit, Gate, Scatter, tune
```
"""

from lab.claims.vocabulary import (
    Claim,
    Contrast,
    Curves,
    Experiment,
    Gate,
    Heatmap,
    RankCorrelation,
    Scatter,
)
from lab.engines.epochs import evaluate
from lab.engines.fit import Fit
from lab.engines.once import once
from lab.engines.training import train
from lab.engines.tune import tune
from lab.engines.twins import stand_in

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
