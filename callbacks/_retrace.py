"""Changing what a compiled training step does."""

import functools


def forget_trace(model):
    """Has `fit` compile its step anew, if it did so before."""
    if getattr(model, "train_function", None) is None:
        return
    # JAX takes an earlier trace of an equal function while that one lives, and a method is equal
    # to itself, though the optimizer does something else now; a `partial` equals no other.
    own = vars(model).get("train_step")
    vars(model)["train_step"] = functools.partial(model.train_step)
    try:
        model.make_train_function(force=True)
    finally:
        del vars(model)["train_step"]
        if own is not None:
            vars(model)["train_step"] = own


class Hook:
    """Stands in for a method of one object, until it is released; several can be stacked."""

    def __init__(self, owner, name, around):
        self.owner, self.name, self.around = owner, name, around
        self.method, self.beneath = getattr(owner, name), vars(owner).get(name)
        vars(owner)[name] = self

    def __call__(self, *args, **kwargs):
        if self.around is None:
            return self.method(*args, **kwargs)
        return self.around(self.method, *args, **kwargs)

    def release(self):
        """Does nothing from now on, and goes as soon as none that still does lies on it."""
        self.around = None
        own = vars(self.owner)
        while isinstance(top := own.get(self.name), Hook) and top.around is None:
            del own[self.name]
            if top.beneath is not None:
                own[self.name] = top.beneath
