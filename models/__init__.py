"""Functions that return a `keras.Model`, one per file and named like it: uncompiled, with logits.

`__all__` is the list of what `MODEL=` may name; the other files are what they share, and what is
done to trained ones (`surgery`).
"""

from models.convnet import convnet
from models.mlp import mlp
from models.resnet import resnet

__all__ = ["convnet", "mlp", "resnet"]
