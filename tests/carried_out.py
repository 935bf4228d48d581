"""A trial that is carried out in the test's own process, while what it asks for is watched."""

from lab.records.measured import Measured
from lab.sweeps.trial import execute
from tests.needs import assert_has_what_it_needs


class CarriedOut:
    """What a trial has recorded, and what it asked for.

    Attributes:
        metrics: What was recorded at the end of the run.
        asked: Each `Fit` or list of them, in order.
        rounds: The lists among these.
        fits: All of these, in one list.
        starts: The weights with which each of `fits` went in.
    """

    def __init__(self, trial, run):
        self.trial, self.asked, self.fits, self.starts = trial, [], [], []
        execute(trial, lambda trial: self._watched(run(trial)))
        self.rows = trial.rows
        self.metrics = {metric: value for epoch, metric, value in trial.rows if epoch is None}
        self.rounds = [asked for asked in self.asked if isinstance(asked, list)]

    def _watched(self, course):
        answer = None
        while True:
            try:
                asked = course.send(answer)
            except StopIteration:
                return
            self.asked.append(asked)
            fits = asked if isinstance(asked, list) else [asked]
            self.fits += fits
            self.starts += [fit.model.get_weights() for fit in fits]
            answer = yield asked


def assert_all_have_what_is_needed(experiment, done):
    """One seed of every arm, carried out, has all that is needed; returns what was measured."""
    assert set(done) == set(experiment.arms)
    trials = [one.trial for one in done.values()]
    measured = Measured(trials[0].name, trials[0].setting)
    for trial in trials:
        measured.add(trial.arm_name, trial.seed, trial.rows, {})
    assert_has_what_it_needs(experiment, measured)
    return measured
