"""The machinery: claims, data, engines, records, report, sweeps. This is its only public face.

An experiment needs nothing else of it:

```python
from lab import Claim, Contrast, Curves, Experiment, Fit, points, tune
```
"""

from lab.claims.contrasts import difference, interaction, ratio, recorded, slope
from lab.claims.figures import Curves, Heatmap, Scatter, cosine_cycles, lines
from lab.claims.gates import (
    as_many_steps,
    at_target,
    learned,
    leaves_room,
    losses_match,
    not_at_edge,
    tuned,
)
from lab.claims.measures import Measure, factor, points
from lab.claims.vocabulary import Claim, Contrast, Experiment, Gate, RankCorrelation
from lab.engines import ensembles, predictions
from lab.engines.evaluation import evaluate
from lab.engines.fit import Fit, steps_per_epoch
from lab.engines.matched import at_loss, gaps, keep_weights, matched, reaching, repeated
from lab.engines.members import tune_members
from lab.engines.once import once
from lab.engines.stand_ins import stand_in
from lab.engines.training import train
from lab.engines.tune import tune

__all__ = [
    "Claim",
    "Contrast",
    "Curves",
    "Experiment",
    "Fit",
    "Gate",
    "Heatmap",
    "Measure",
    "RankCorrelation",
    "Scatter",
    "as_many_steps",
    "at_loss",
    "at_target",
    "cosine_cycles",
    "difference",
    "ensembles",
    "evaluate",
    "factor",
    "gaps",
    "interaction",
    "keep_weights",
    "learned",
    "leaves_room",
    "lines",
    "losses_match",
    "matched",
    "not_at_edge",
    "once",
    "points",
    "predictions",
    "ratio",
    "reaching",
    "recorded",
    "repeated",
    "slope",
    "stand_in",
    "steps_per_epoch",
    "train",
    "tune",
    "tune_members",
    "tuned",
]
