"""What there is to do: which trials are missing, cached, stale or broken, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.claims.vocabulary import Experiment, Setting
from lab.records import fingerprint, store


@dataclass(frozen=True)
class Planned:
    """One trial of a plan.

    Attributes:
        key: Which trial.
        state: "cached" (valid and current), "missing", "stale", "broken", or "kept": stale, and
            not to be run again because KEEP_STALE=1 was given.
        why: What changed, or what is broken.
        described: What its rows depend on (`fingerprint.describe`).
        diverged: Whether the trial that is there had diverged.
        fingerprint: Of the trial that is there.
    """

    key: store.Key
    state: str
    why: str
    described: dict
    diverged: bool = False
    fingerprint: str = ""

    @property
    def there(self) -> bool:
        """Whether it need not be run."""
        return self.state in ("cached", "kept")


def make_plan(
    results: Path,
    name: str,
    experiment: Experiment,
    setting: Setting,
    seeds: int,
    keep_stale: bool = False,
    later: Sequence[tuple[str, int]] = (),
) -> list[Planned]:
    """Every trial of `seeds` replications, seed by seed, so that each claim has early pairs.

    Args:
        results: The folder of the results.
        name: Of the experiment.
        experiment: What has the arms.
        setting: Of the trials.
        seeds: How many of each arm.
        keep_stale: Whether stale trials are not to be run again.
        later: Trials of later looks, as arm and seed.
    """
    described = {
        arm: fingerprint.describe(name, experiment, arm, setting) for arm in experiment.arms
    }
    every = [(arm, seed) for seed in range(seeds) for arm in experiment.arms]
    return [
        _planned(results, store.Key(name, setting, arm, seed), described[arm], keep_stale)
        for arm, seed in [*every, *later]
    ]


def _planned(results: Path, key: store.Key, described: dict, keep_stale: bool) -> Planned:
    try:
        manifest, _ = store.read(results, key)
    except store.Missing:
        return Planned(key, "missing", "", described)
    except store.Broken as error:
        return Planned(key, "broken", str(error), described)
    found = manifest.get("fingerprint", "")
    diverged = manifest.get("status") == "diverged"
    if found == fingerprint.digest(described):
        return Planned(key, "cached", "", described, diverged, found)
    why = fingerprint.what_changed(manifest.get("described", {}), described)
    state = "kept" if keep_stale else "stale"
    return Planned(key, state, why or "fingerprint differs", described, diverged, found)
