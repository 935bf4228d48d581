"""What the report has to show of one experiment in one setting: Markdown and the page share it."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lab.claims import wording
from lab.claims.stats import Sensitivity
from lab.claims.vocabulary import Experiment, Setting
from lab.records.measured import Measured
from lab.records.verdicts import Verdict, robustness
from lab.report import tables
from lab.report.tabular import Table

# Figures that every experiment has, behind those that it declares.
GENERIC = ("seeds", "intervals", "learning_curves")


@dataclass
class Section:
    """One experiment in one setting.

    Attributes:
        experiment: None if this installation has none of that name.
        verdicts: Empty where nothing can be judged.
        pictures: Name, title, caption, alt, path below the results, and SVG of each figure.
        command: What reproduces it.
    """

    name: str
    experiment: Experiment | None
    measured: Measured
    verdicts: list[Verdict] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    command: str = ""

    @property
    def setting(self) -> Setting:
        """Scale, data, model and backend."""
        return self.measured.setting

    @property
    def anchor(self) -> str:
        """Its id on the page."""
        return f"{self.name}-{self.setting.folder}"

    @property
    def folder(self) -> str:
        """Where its figures and tables lie, below `figures/` and `tables/`."""
        return f"{self.name}/{self.setting.folder}"

    @cached_property
    def ordered_pictures(self) -> list[dict[str, Any]]:
        """Declared figures first, then every seed, the intervals, and what else there is."""
        specs = self.experiment.figures if self.experiment else ()
        first = [*(spec.name for spec in specs), *GENERIC]
        rank = {name: place for place, name in reversed(list(enumerate(first)))}
        return sorted(self.pictures, key=lambda picture: rank.get(picture["name"], len(first)))

    @cached_property
    def checks(self) -> list[Sensitivity]:
        """A sensitivity check for each verdict: they take long enough to be made once."""
        return [robustness(verdict) for verdict in self.verdicts]

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Its tables that have rows, by name."""
        made = (
            tables.judged(self.verdicts),
            tables.beside(self.verdicts),
            tables.arms(self.measured, self.verdicts),
            tables.gates(self.verdicts),
            tables.sensitivity(self.verdicts, self.checks),
        )
        return {table.name: table for table in made if table.rows}

    @property
    def judgeable(self) -> bool:
        """Whether this installation knows the experiment at that scale."""
        return self.experiment is not None and self.setting.scale in self.experiment.scales

    @property
    def missing(self) -> int:
        """How many trials of those that were asked for are not there."""
        if not self.judgeable or self.experiment is None:
            return 0
        seeds, _ = self.measured.declared(self.experiment.scales[self.setting.scale]["seeds"])
        there = sum(seed < seeds for _, seed in self.measured.manifests)
        return max(0, len(self.experiment.arms) * seeds - there)

    @property
    def failed_gates(self) -> list[tuple[Verdict, str]]:
        """Verdict and gate, where a gate failed."""
        return [(v, says) for v in self.verdicts for says, held in v.gates if not held]

    @property
    def cost(self) -> str:
        """Trials, summed time and device."""
        manifests = self.measured.manifests.values()
        seconds = (float(manifest.get("seconds", 0)) for manifest in manifests)
        total = sum(each for each in seconds if math.isfinite(each))
        devices = " and ".join(self.facts["device"]) or "nothing"
        trials = f"{len(manifests)} trial{'s' * (len(manifests) != 1)}"
        return f"{trials}, {wording.duration(total)} of one worker, on {devices}"

    @cached_property
    def facts(self) -> dict[str, list[str]]:
        """What its trials ran on and with: every distinct answer, sorted."""
        found: dict[str, set[str]] = {"device": set(), "engine": set(), "threads": set()}
        found |= {"libraries": set(), "commit": set(), "scale": set()}
        for manifest in self.measured.manifests.values():
            described = manifest.get("described", {})
            device, processor = manifest.get("device", "unknown"), manifest.get("processor")
            found["device"].add(f"{device} ({processor})" if processor else str(device))
            found["engine"].add(str(manifest.get("engine", "")))
            found["commit"].add(str(manifest.get("git_commit") or ""))
            found["threads"].add(str(described.get("threads", "")))
            found["libraries"].add(_pairs(described.get("versions")))
            found["scale"].add(_pairs(described.get("scale")))
        return {what: sorted(answers - {""}) for what, answers in found.items()}

    @cached_property
    def fingerprints(self) -> list[tuple[str, list[str]]]:
        """Each arm with the fingerprints of what its trials ran; one, unless they are mixed."""
        found: dict[str, set[str]] = {}
        for (arm, _), manifest in self.measured.manifests.items():
            found.setdefault(arm, set()).add(str(manifest.get("fingerprint", "")))
        return [(arm, sorted(prints)) for arm, prints in found.items()]


def story(experiment: Experiment | None) -> list[str]:
    """The paragraphs of the experiment's own docstring, its title left out."""
    module = inspect.getmodule(experiment.run) if experiment else None
    paragraphs = inspect.cleandoc((module and module.__doc__) or "").split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs[1:]]


def verdicts(sections: Sequence[Section]) -> list[Verdict]:
    """All of them, in the order of the report."""
    return [verdict for section in sections for verdict in section.verdicts]


def _pairs(told: Any) -> str:
    if not isinstance(told, dict):
        return ""
    return ", ".join(f"{what} {value}" for what, value in sorted(told.items()))
