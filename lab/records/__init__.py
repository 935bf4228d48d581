"""What was measured and what it says: trials on disk, their fingerprints, and their verdicts.

What is written here is immutable; everything else is made from it. Nothing here draws or trains.
"""
