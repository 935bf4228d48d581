"""Running trials: the plan of what is missing, workers on this machine or on Ray, progress.

A trial (`trial`) is a function of experiment, arm, seed and setting; nothing here may change that.
"""
