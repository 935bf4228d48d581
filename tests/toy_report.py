"""An experiment whose every text is hostile, and trials of it."""

import numpy as np

from lab.claims.vocabulary import Claim, Contrast, Curves, Experiment, Scatter, Setting
from lab.records import store

SETTING = Setting("quick", "digits", "mlp", "tensorflow")
NASTY = "<script>alert(1)</script> | `code` *b* =HYPERLINK(1)"


def claim(id, metric, **more):
    parts = {"says": NASTY, "margin": 0.1, "unit": "points", "literature": NASTY}
    return Claim(id, contrast=Contrast(metric, {"large": 1, "small": -1}), **(parts | more))


EXPERIMENT = Experiment(
    title=NASTY,
    source=NASTY,
    arms={"small": {}, "large": {}},
    scales={"quick": {"seeds": 4}},
    run=lambda trial: None,
    claims=[
        claim("A", "m", beside={"naive": Contrast("m", {"large": 1})}),
        Claim(
            "B",
            "says",
            Contrast("m", {"large": 1, "small": -1}, log=True),
            0.1,
            "ratio",
            "none",
        ),
        claim("C", "absent"),
    ],
    figures=[
        Scatter("points", NASTY, "m", "k", "m", "k", log_x=True),
        Curves("lines", NASTY, "x", {"y": [("a", "small", "curve"), ("b", "large", "curve")]}),
        Curves("nothing", "t", "x", {"y": [("a", "small", "gone")]}),
    ],
)


def save(folder, experiment="toy", setting=SETTING, seeds=4):
    """Write trials of both arms, the larger one better by about 1."""
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        for arm, mean in (("small", 1.0), ("large", 2.0)):
            rows = [(None, "m", mean + rng.normal(0, 0.1)), (None, "k", rng.normal())]
            rows += [(None, f"curve@{x:g}", x**2 + mean) for x in (-1.0, 0.0, 0.5)]
            rows += [(epoch, "loss", 1 / epoch) for epoch in (1, 2)]
            manifest = {"status": "done", "declared_seeds": seeds, "seconds": 2.0, "device": NASTY}
            store.save(folder, store.Key(experiment, setting, arm, seed), rows, manifest)
