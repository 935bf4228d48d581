"""Ways to train that give what `model.fit` gives, and the steps that trials share.

`training` takes a `Fit` to an engine: `plain`, `fused` or `stacked`. Tuning, trainings made once,
and what predictions are worth build on them. Nothing here knows of files, arms or seeds of others.
"""
