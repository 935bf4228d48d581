"""Data sets by name: embedded ones, TFDS, and how a seed draws splits and subsets from them.

`loading` is the way in. Nothing here trains, and nothing here touches the network but `prepare`.
"""
