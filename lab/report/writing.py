"""Rebuilds every table and figure from the trials' files alone."""

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.claims import discovery
from lab.claims.vocabulary import Experiment
from lab.machine import files, locks
from lab.records import inert, kept, ledger, store

if TYPE_CHECKING:
    from lab.report.sections import Section
    from lab.report.tabular import Table

REFERENCE = discovery.ROOT / "results" / "reference"  # committed; shown beside one's own
STAMP = ".report.json"  # what the derived files were made from; deleting it only costs time


def write(results: Path) -> bool:
    """Rebuild the derived files unless they are current and untouched. Returns whether it did.

    Raises:
        OSError: With the path, if one cannot be written; each is then the old or the new one.
    """
    with locks.derived(results):  # who comes last has read every trial that was there
        return _write(results)


def _write(results: Path) -> bool:
    keys = list(store.trials(results))
    strangers = left_out(results, keys)
    committed = reference(results)
    inputs = _inputs(results, keys, strangers, committed)
    if _current(results, inputs):
        return False
    from lab.report import markdown, page, tables
    from lab.report.sections import verdicts

    for pattern in ("*", "figures/**/*", "tables/**/*"):
        files.remove_orphans(results.glob(pattern))
    rows = {f"{key.experiment}.csv": _Rows() for key in keys}
    sections = gather(
        results, keys, _pictures, lambda key, *trial: rows[f"{key.experiment}.csv"].add(key, *trial)
    )
    for path, experiment_rows in rows.items():
        files.write_atomically(results / path, experiment_rows.text().encode())
    every = verdicts(sections)
    made = set(rows)
    made |= {picture["path"] for section in sections for picture in section.pictures}
    made |= {ledger.VERDICTS, ledger.COMPARISONS, "REPORT.md", "report.html"}
    ledger.save(results, every)
    made |= _write_table(results, "tables", tables.ledger(every))
    for section in sections:
        for table in section.tables.values():
            made |= _write_table(results, f"tables/{section.folder}", table)
    text = markdown.render(sections, strangers)
    files.write_atomically(results / "REPORT.md", text.encode())
    text = page.render(sections, committed, strangers)
    files.write_atomically(results / "report.html", text.encode())
    digests = {path: _digest(results / path) for path in sorted(made)}
    stamp = json.dumps({"inputs": inputs, "made": digests}, indent=1)
    files.write_atomically(results / STAMP, stamp.encode())
    return True


def gather(
    results: Path,
    keys: Sequence[store.Key],
    pictures: Callable = lambda *_: [],
    believed: Callable = lambda *_: None,
) -> "list[Section]":
    """What there is to show of some trials, by experiment and setting; writes nothing itself.

    Args:
        results: The folder of the results.
        keys: The trials.
        pictures: What draws the figures of a section; by default there are none.
        believed: Told of every trial that counts: key, rows, CSV text.
    """
    from lab.records.measured import load
    from lab.records.verdicts import judge_all
    from lab.report.sections import Section

    experiments = {name: _usable(name) for name in sorted({key.experiment for key in keys})}
    sections = []
    for measured in load(results, keys, believed):
        name, setting = measured.experiment, measured.setting
        experiment = experiments[name]
        judgeable = experiment if experiment and setting.scale in experiment.scales else None
        verdicts = judge_all(name, judgeable, measured) if judgeable else []
        drawn = pictures(results, judgeable, measured, verdicts)
        words = _again(name, judgeable, measured)
        sections.append(Section(name, experiment, measured, verdicts, drawn, words))
    return sections


def drawn(results: Path, experiment, measured, verdicts) -> list[dict[str, Any]]:
    """Name, title, caption, alt, path below `results`, SVG and figure of each; writes nothing."""
    from lab.figures import drawing

    folder = f"figures/{measured.experiment}/{measured.setting.folder}"
    return [
        {field: getattr(made, field) for field in ("name", "title", "caption", "alt", "figure")}
        | {"path": f"{folder}/{made.name}.svg", "svg": drawing.svg(made.figure)}
        for made in drawing.draw(experiment, measured, verdicts)
    ]


def summary(results: Path) -> str:
    """What a rebuilt report holds, in a few lines."""
    rows = ledger.verdicts(results)
    if not rows:
        return f"No results in {results} yet. To get some: make experiment NAME=batch_size"
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row["verdict"]] += 1
    said = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return f"{len(rows)} verdicts: {said}\nreport: {results / 'report.html'}"


def command(name: str, experiment: Experiment | None, setting, **more) -> str:
    """The make command that produces a setting; words that are defaults are left out."""
    usual = {"SCALE": "quick", "BACKEND": "tensorflow", "RESULTS": "results", "RAY_ADDRESS": ""}
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


def _again(name: str, experiment: Experiment | None, measured) -> str:
    """The command for what was measured: also its seeds and engine, if they are not the usual."""
    more = {}
    manifests = measured.manifests.values()
    seeds = max((manifest.get("declared_seeds", 0) for manifest in manifests), default=0)
    usual = experiment.scales[measured.setting.scale]["seeds"] if experiment else 0
    if seeds and seeds != usual:
        more["SEEDS"] = str(seeds)
    elif any(seed >= usual for _, seed in measured.manifests):
        more["UNTIL"] = "decided"
    engines = {str(manifest.get("engine", "fused")) for manifest in manifests}
    if engines and "fused" not in engines:
        more["ENGINE"] = min(engines)
    return command(name, experiment, measured.setting, **more)


def left_out(results: Path, keys: Sequence[store.Key]) -> list[str]:
    """A sentence for each file that is no trial's, and each experiment that cannot be read."""
    sentences = store.strangers(results)
    for name in sorted({key.experiment for key in keys}):
        try:
            _known(name)
        except discovery.Unusable as error:
            sentences.append(f"{error} Its results are not judged.")
    return sentences


def _known(name: str) -> Experiment | None:
    return discovery.load_experiment(name) if name in discovery.experiment_names() else None


def _usable(name: str) -> Experiment | None:
    try:
        return _known(name)
    except discovery.Unusable:
        return None


def _inputs(results: Path, keys: Sequence[store.Key], strangers, committed) -> str:
    """A digest of everything the derived files depend on."""
    digest = hashlib.sha256(repr((strangers, committed)).encode())
    for key in keys:
        for path in store.paths(results, key):
            digest.update(f"{key.path} {_digest(path)}\n".encode())
    for where in sorted({(key.experiment, key.setting) for key in keys}):
        digest.update(repr(sorted(kept.read(results, *where).items())).encode())
    for folder in ("lab", "experiments"):
        for source in sorted((discovery.ROOT / folder).rglob("*.*")):
            if source.suffix != ".pyc" and source.is_file():
                digest.update(source.read_bytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(files.content(path)).hexdigest()
    except store.Broken as error:
        return str(error)


def _current(results: Path, inputs: str) -> bool:
    try:
        stamp = json.loads(files.content(results / STAMP))
        made = stamp["made"].items()
        return stamp["inputs"] == inputs and all(_digest(results / p) == was for p, was in made)
    except (store.Broken, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


class _Rows:
    """All trials of an experiment as one CSV text; broken ones are not among them."""

    def __init__(self):
        self.parts = [",".join(store.COLUMNS) + "\n"]

    def add(self, key: store.Key, rows, text: str) -> None:
        """Take in one trial, as it was written unless a spreadsheet would compute its metrics."""
        harmless = {metric: inert.spreadsheet(metric) for _, metric, _ in rows}
        if any(metric != said for metric, said in harmless.items()):
            rows = [(epoch, harmless[metric], value) for epoch, metric, value in rows]
            text = store.encode(key, rows).decode()
        self.parts.append(text.partition("\n")[2])

    def text(self) -> str:
        """The file."""
        return "".join(self.parts)


def _write_table(results: Path, folder: str, table: "Table") -> set[str]:
    """A table in every form; returns their paths below the results."""
    forms = {"csv": table.csv(), "tex": table.latex(), "md": table.markdown()}
    paths = {f"{folder}/{table.name}.{ending}": text for ending, text in forms.items()}
    for path, text in paths.items():
        files.write_atomically(results / path, text.encode())
    return set(paths)


def reference(results: Path) -> list[dict[str, str]]:
    """What the committed results say, to be shown beside others."""
    return [] if results.resolve() == REFERENCE else ledger.verdicts(REFERENCE)


def _pictures(results: Path, experiment, measured, verdicts) -> list[dict[str, Any]]:
    """Draw and save."""
    from lab.figures import drawing

    pictures = drawn(results, experiment, measured, verdicts)
    for picture in pictures:
        path = results / picture["path"]
        files.write_atomically(path, picture["svg"])
        # For slides; nothing else depends on it.
        files.write_atomically(path.with_suffix(".png"), drawing.png(picture.pop("figure")))
    return pictures
