"""All that was measured for one experiment in one setting, read from its files."""

from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab.claims.vocabulary import AnyContrast, Setting, Values
from lab.records import fingerprint, kept, store

# A verdict never mixes trials that differ in these (trap 16); arms differ in `arm`.
MUST_AGREE = ("code", "versions", "threads", "scale")
MOST_SAID = 3  # differences that a reason names


@dataclass
class Measured:
    """The trials of one experiment in one setting.

    Attributes:
        values: For each seed, the end-of-run metrics by (arm, metric).
        epochs: Rows `(arm, seed, epoch, metric, value)` of the training histories.
        diverged: The (arm, seed) whose training diverged.
        manifests: By (arm, seed).
        broken: A sentence for each trial that was left out.
        kept: Fingerprints that count though they are stale, each with what changed since.
    """

    experiment: str
    setting: Setting
    values: dict[int, dict[tuple[str, str], float]] = field(default_factory=dict)
    epochs: list[tuple[str, int, int, str, float]] = field(default_factory=list)
    diverged: set[tuple[str, int]] = field(default_factory=set)
    manifests: dict[tuple[str, int], dict] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

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

    def mixed(self, arms: Container[str]) -> str:
        """How trials of these arms differ that must not, or nothing.

        Nobody is asked about trials that were kept on purpose, but what device they ran on.
        """
        seen: dict[str, dict] = {}
        others: list[str] = []
        parts: set[str] = set()
        for arm, manifest in self._in_time():
            if arm not in arms:
                continue
            told = {"": {"device": str(manifest.get("device"))}}
            if manifest.get("fingerprint") not in self.kept:
                described = manifest.get("described", {})
                told["described"] = {part: described.get(part) for part in MUST_AGREE}
                told["described"]["sources"] = described.get("sources", {})  # which changed
                told[arm] = {f"settings of {arm}": described.get("arm")}
            for whose, now in told.items():
                before = seen.setdefault(whose, now)
                parts |= {part for part in {*now} - {"sources"} if now[part] != before[part]}
                others += filter(None, [fingerprint.what_changed(before, now)])
        if not parts:
            return ""
        changes = list(dict.fromkeys(others))
        more = ", ..." if len(changes) > MOST_SAID else ""
        return (
            f"trials of different {', '.join(sorted(parts))} are mixed "
            f"({', '.join(changes[:MOST_SAID])}{more})"
        )

    def _in_time(self) -> list[tuple[str, dict]]:
        """Arm and manifest of each trial, as far as clocks can be believed the oldest first."""
        found = [(arm, manifest) for (arm, _), manifest in self.manifests.items()]
        return sorted(found, key=lambda one: str(one[1].get("finished", "")))

    @property
    def kept_trials(self) -> dict[str, int]:
        """How many stale trials were kept, by what changed since."""
        prints = (manifest.get("fingerprint", "") for manifest in self.manifests.values())
        return Counter(self.kept[each] for each in prints if each in self.kept)

    def test_size(self, arm: str, seed: int) -> int:
        """The number of test examples of a trial, of the last data set that it asked for; or 0."""
        told = self.manifests.get((arm, seed), {}).get("examples") or [{}]
        size = told[-1].get("test", 0) if isinstance(told[-1], dict) else 0
        return size if isinstance(size, int) and size > 0 else 0

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
        where = key.experiment, key.setting
        if where not in groups:
            groups[where] = Measured(*where, kept=kept.read(results, *where))
        group = groups[where]
        try:
            manifest, rows, text = store.read_with_text(results, key)
        except store.Broken as error:
            group.broken.append(str(error))
            continue
        group.add(key.arm, key.seed, rows, manifest)
        believed(key, rows, text)
    return list(groups.values())
