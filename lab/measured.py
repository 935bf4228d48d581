"""All that was measured for one experiment in one setting, read from its files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab import store
from lab.vocabulary import AnyContrast, Setting, Values

# A verdict never mixes trials that differ in these (trap 16); arms differ in `arm`.
MUST_AGREE = ("sources", "versions", "threads", "scale")


@dataclass
class Measured:
    """The trials of one experiment in one setting.

    Attributes:
        values: For each seed, the end-of-run metrics by (arm, metric).
        epochs: Rows `(arm, seed, epoch, metric, value)` of the training histories.
        diverged: The (arm, seed) whose training diverged.
        manifests: By (arm, seed).
        broken: A sentence for each trial that was left out.
    """

    experiment: str
    setting: Setting
    values: dict[int, dict[tuple[str, str], float]] = field(default_factory=dict)
    epochs: list[tuple[str, int, int, str, float]] = field(default_factory=list)
    diverged: set[tuple[str, int]] = field(default_factory=set)
    manifests: dict[tuple[str, int], dict] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, arm: str, seed: int, rows, manifest: dict) -> None:
        """Take in one trial."""
        table = self.values.setdefault(seed, {})
        for epoch, metric, value in rows:
            if epoch is None:
                table[arm, metric] = value
            else:
                self.epochs.append((arm, seed, epoch, metric, value))
        self.manifests[arm, seed] = manifest
        if manifest.get("status") == "diverged":
            self.diverged.add((arm, seed))

    def per_seed(self, contrast: AnyContrast) -> dict[int, float]:
        """The contrast of every seed that has all it needs, by seed."""
        return {
            seed: contrast.value(values)
            for seed, values in sorted(self.values.items())
            if _has(values, contrast)
        }

    def mixed(self) -> str:
        """How trials differ that must not, or nothing."""
        seen: dict[str, set[str]] = {}
        for manifest in self.manifests.values():
            described = manifest.get("described", {})
            for part in MUST_AGREE:
                seen.setdefault(part, set()).add(repr(described.get(part)))
            seen.setdefault("device", set()).add(str(manifest.get("device")))
        mixed = [part for part, kinds in seen.items() if len(kinds) > 1]
        return f"trials of different {', '.join(mixed)} are mixed" if mixed else ""

    def declared(self, at_least: int) -> tuple[int, int]:
        """The number of seeds that was asked for, and at how many such numbers one has looked."""
        asked = {max(at_least, int(m.get("declared_seeds", 0))) for m in self.manifests.values()}
        return max(asked, default=at_least), max(1, len(asked))


def _has(values: Values, contrast: AnyContrast) -> bool:
    return all(need in values for need in contrast.needs())


def load(
    results: Path,
    keys: Iterable[store.Key],
    believed: Callable[[store.Key, list, str], object] = lambda *_: None,
) -> list[Measured]:
    """Read trials, grouped by experiment and setting, broken ones named and left out.

    Each file is read once; `believed` is told of every trial that counts: key, rows, CSV text.
    """
    groups: dict[tuple[str, Setting], Measured] = {}
    for key in keys:
        group = groups.setdefault(
            (key.experiment, key.setting), Measured(key.experiment, key.setting)
        )
        try:
            manifest, rows, text = store.read_with_text(results, key)
        except store.Broken as error:
            group.broken.append(str(error))
            continue
        group.add(key.arm, key.seed, rows, manifest)
        believed(key, rows, text)
    return list(groups.values())
