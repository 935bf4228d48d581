"""Words, tables and pages from what was measured; figures come from `lab.figures`.

`writing` rebuilds all of it from the trials' files alone. Nothing here judges: verdicts are read.
"""
