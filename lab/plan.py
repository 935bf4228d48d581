"""What there is to do: which trials are missing, cached, stale or broken, and why."""

from dataclasses import dataclass
from pathlib import Path

from lab import fingerprint, store
from lab.vocabulary import Experiment, Setting


@dataclass(frozen=True)
class Planned:
    """One trial of a plan.

    Attributes:
        key: Which trial.
        state: "cached" (valid and current), "missing", "stale" or "broken".
        why: What changed, or what is broken.
        described: What its rows depend on (`fingerprint.describe`).
        diverged: Whether the cached trial had diverged.
    """

    key: store.Key
    state: str
    why: str
    described: dict
    diverged: bool = False


def make_plan(
    results: Path, name: str, experiment: Experiment, setting: Setting, seeds: int
) -> list[Planned]:
    """Every trial of `seeds` replications, seed by seed, so that each claim has early pairs."""
    described = {
        arm: fingerprint.describe(name, experiment, arm, setting) for arm in experiment.arms
    }
    return [
        _planned(results, store.Key(name, setting, arm, seed), described[arm])
        for seed in range(seeds)
        for arm in experiment.arms
    ]


def _planned(results: Path, key: store.Key, described: dict) -> Planned:
    try:
        manifest = store.read_manifest(results, key)
    except store.Broken as error:
        return Planned(key, "broken", str(error), described)
    if manifest is None:
        return Planned(key, "missing", "", described)
    if manifest.get("fingerprint") != fingerprint.digest(described):
        before = manifest.get("described")
        why = fingerprint.what_changed(before if isinstance(before, dict) else {}, described)
        return Planned(key, "stale", why or "fingerprint differs", described)
    return Planned(key, "cached", "", described, manifest.get("status") == "diverged")
