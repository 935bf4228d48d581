"""The global state of random generators and names, given to one piece of work at a time."""

import random
import sys


class Surroundings:
    """A trial's own global random generators and names, as if it had the process to itself.

    Keras draws unseeded layers, and numbers what is unnamed (a metric becomes `auc_1`), from
    global state. Shared, a trial's rows would depend on which others it advances with.

    Args:
        seed: What the generators start from. None leaves them alone, for work that draws nothing
            that matters: TensorFlow's own global seed can be set, but not read and put back.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed
        self._own: tuple | None = None
        self._others: tuple = ()

    def __enter__(self):
        self._others = _globals()
        if self._own is None:
            _set_globals((*self._others[:2], {}))
            if self.seed is not None:
                seed_everything(self.seed)
        else:
            _set_globals(self._own)

    def __exit__(self, *raised):
        self._own = _globals()
        _set_globals(self._others)


def _keras_globals() -> dict:
    # Private to Keras, but `clear_session` can only empty it, and models outlive a round.
    state = sys.modules.get("keras.src.backend.common.global_state")
    return vars(state.GLOBAL_STATE_TRACKER) if state else {}


def _globals() -> tuple:
    import numpy as np

    return random.getstate(), np.random.get_state(), dict(_keras_globals())


def _set_globals(values: tuple) -> None:
    import numpy as np

    random.setstate(values[0])
    np.random.set_state(values[1])
    now = _keras_globals()
    now.clear()
    now.update(values[2])


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and Keras's global generators, the latter two if Keras is loaded."""
    random.seed(seed)
    if "keras" in sys.modules:
        import keras

        keras.utils.set_random_seed(seed)
