"""Rebuilds every table and figure from the trials' files alone."""

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import discovery, ledger, store
from lab.vocabulary import Experiment

STAMP = ".report.json"  # what the derived files were made from; deleting it only costs time


def write(results: Path) -> bool:
    """Rebuild the derived files unless they are current. Returns whether it did."""
    keys = list(store.trials(results))
    inputs = _inputs(results, keys)
    if _current(results, inputs):
        return False
    from lab.measured import load
    from lab.verdicts import judge_all

    sections: list[dict[str, Any]] = []
    made: list[str] = []
    for name in sorted({key.experiment for key in keys}):
        experiment = _known(name)
        groups = load(results, [key for key in keys if key.experiment == name])
        _write_rows(results, name, keys)
        made.append(f"{name}.csv")
        for measured in groups:
            known = experiment is not None and measured.setting.scale in experiment.scales
            verdicts = judge_all(name, experiment, measured) if experiment and known else []
            pictures = _pictures(results, experiment if known else None, measured, verdicts)
            made += [picture["path"] for picture in pictures]
            sections.append(
                {
                    "name": name,
                    "experiment": experiment,
                    "measured": measured,
                    "verdicts": verdicts,
                    "pictures": pictures,
                    "command": command(name, experiment, measured.setting),
                }
            )
    ledger.save(results, [verdict for section in sections for verdict in section["verdicts"]])
    from lab.markdown import render

    store.write_atomically(results / "REPORT.md", render(sections).encode())
    made += [ledger.VERDICTS, ledger.COMPARISONS, "REPORT.md"]
    stamp = json.dumps({"inputs": inputs, "made": sorted(made)}, indent=1)
    store.write_atomically(results / STAMP, stamp.encode())
    return True


def summary(results: Path) -> str:
    """What a rebuilt report holds, in a few lines."""
    rows = ledger.verdicts(results)
    if not rows:
        return f"No results in {results} yet. To get some: make experiment NAME=batch_size"
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row["verdict"]] += 1
    said = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return f"{len(rows)} verdicts: {said}\nreport: {results / 'REPORT.md'}"


def command(name: str, experiment: Experiment | None, setting, **more) -> str:
    """The make command that produces a setting; words that are defaults are left out."""
    usual = {"SCALE": "quick", "BACKEND": "tensorflow", "RESULTS": "results"}
    if experiment is not None:
        usual |= {"DATA": experiment.data, "MODEL": experiment.model}
    asked = {
        "NAME": name,
        "SCALE": setting.scale,
        "DATA": setting.data,
        "MODEL": setting.model,
        "BACKEND": setting.backend,
        **more,
    }
    words = [f"{key}={value}" for key, value in asked.items() if usual.get(key) != value]
    return "make experiment " + " ".join(map(shlex.quote, words))


def _known(name: str) -> Experiment | None:
    return discovery.load_experiment(name) if name in discovery.experiment_names() else None


def _inputs(results: Path, keys: Sequence[store.Key]) -> str:
    """A digest of everything the derived files depend on."""
    digest = hashlib.sha256()
    for key in keys:
        for ending in ("json", "csv"):
            path = store.present(results / f"{key.path}.{ending}")
            content = path.read_bytes() if path.is_file() else b"missing"
            digest.update(f"{key.path} {hashlib.sha256(content).hexdigest()}\n".encode())
    for folder in ("lab", "experiments"):
        for source in sorted((discovery.ROOT / folder).glob("*.*")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _current(results: Path, inputs: str) -> bool:
    try:
        stamp = json.loads((results / STAMP).read_text("utf-8"))
        return stamp["inputs"] == inputs and all((results / p).is_file() for p in stamp["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_rows(results: Path, name: str, keys: Sequence[store.Key]) -> None:
    """All trials of an experiment as one file; broken ones are left out."""
    parts = [",".join(store.COLUMNS).encode() + b"\n"]
    for key in keys:
        if key.experiment == name:
            try:
                _, rows = store.read(results, key)
            except (store.Broken, ValueError):
                continue
            parts.append(store.encode(key, rows).split(b"\n", 1)[1])
    store.write_atomically(results / f"{name}.csv", b"".join(parts))


def _pictures(results: Path, experiment, measured, verdicts) -> list[dict[str, Any]]:
    """Draw and save; returns name, title, caption, alt, path below results, and svg of each."""
    from lab import figures

    pictures = []
    for drawn in figures.draw(experiment, measured, verdicts):
        path = f"figures/{measured.experiment}/{measured.setting.folder}/{drawn.name}.svg"
        content = figures.svg(drawn.figure)
        store.write_atomically(results / path, content)
        said = {field: getattr(drawn, field) for field in ("name", "title", "caption", "alt")}
        pictures.append(said | {"path": path, "svg": content})
    return pictures
