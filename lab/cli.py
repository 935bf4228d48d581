"""The command line behind the Makefile. Imports late: listing and dry runs must answer at once."""

import argparse
import errno
import importlib.util
import os
import re
import sys
from pathlib import Path

from lab.claims import discovery
from lab.claims.discovery import UsageError, nearest
from lab.claims.vocabulary import NAME, Experiment, Setting
from lab.machine import home, interrupt

BACKENDS = ("tensorflow", "jax")
LAUNCHERS = ("local", "ray")
MOST_SEEDS = 1_000  # n is fixed beforehand; nobody means more than this
MOST_JOBS = 256
MOST_SECONDS = 10**7  # some months
DONE, FAILED, WRONG_USAGE = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message):
        shown = message if len(message) <= 300 else message[:297] + "..."
        raise UsageError(f"{shown}. See `make help`.")

    def _get_values(self, action, arg_strings):
        # argparse before Python 3.13 takes the "--" of `--name=--` for an end of the options.
        if action.nargs is None and arg_strings == ["--"]:
            return "--"
        return super()._get_values(action, arg_strings)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    home.leave_alone()
    parser = _parser()
    try:
        options = parser.parse_args(argv)
        status = options.run(options)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _say(error, WRONG_USAGE)
    except BrokenPipeError:  # `make list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED if options.command == "experiment" and options.dry != "1" else DONE
    except KeyboardInterrupt:
        return _say("Interrupted.", interrupt.EXIT_STATUS)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lab", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def command(name, run, says):
        sub = commands.add_parser(name, help=says, description=says, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    def results(sub):
        sub.add_argument("--results", default="results", help="folder of the results")

    run = command("experiment", _experiment, "run what is missing of an experiment; print verdicts")
    run.add_argument("--name", required=True, help="a file of experiments/")
    run.add_argument("--scale", default="quick", help="smoke, quick, standard or paper")
    run.add_argument("--data", help="digits, mnist1d or a TFDS image classification set")
    run.add_argument("--model", help="a function of models/")
    run.add_argument("--seeds", help="number of replications; the scale declares one")
    run.add_argument("--jobs", help="worker processes, of one thread each")
    run.add_argument("--limit", help="seconds a trial may take; else 20 times the slowest so far")
    run.add_argument("--backend", default="tensorflow", help="tensorflow or jax")
    run.add_argument("--engine", default="fused", help="fused, plain or stacked (JAX)")
    run.add_argument("--launcher", default="local", help="local or ray")
    run.add_argument("--ray-address", default="", help="host:port; else a cluster of its own")
    run.add_argument("--keep-stale", default="", help="1: count stale trials, and say so")
    run.add_argument(
        "--until", default="", help="decided: on to the next look while claims are open"
    )
    run.add_argument("--dry", default="", help="1: only say what would run")
    results(run)
    results(command("list", _list, "every experiment, its claims and their last verdicts"))
    results(command("report", _report, "rebuild tables and figures from the trials' files"))
    watch = command("watch", _watch, "serve the page on this machine, drawn anew as trials land")
    watch.add_argument("--port", help="where to serve it")
    results(watch)
    results(command("compact", _compact, "compress the trials' files; they are read as before"))
    command("data", _data, "download and prepare a TFDS data set").add_argument(
        "--data", required=True, help="its TFDS name"
    )
    results(command("doctor", _doctor, "what this machine has, and what is wrong with it"))
    return parser


def _say(message, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _choice(what: str, value: str, known) -> str:
    if value not in known:
        raise nearest(what, value, known)
    return value


def _number(what: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= most and len(value) < 9):
        shown = value if len(value) <= 40 else value[:37] + "..."
        raise UsageError(f"{what}={shown!r} must be a whole number from 1 to {most:,}.")
    return int(value)


def _flag(what: str, value: str) -> bool:
    if value not in ("", "0", "1"):
        raise UsageError(f"{what}={value[:40]!r} must be 0 or 1.")
    return value == "1"


def _results_folder(value: str) -> Path:
    if not value.strip() or "\0" in value:
        raise UsageError("RESULTS is empty: give a folder, or leave it out.")
    try:
        os.lstat(value)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"RESULTS={value[:40]!r}... is too long for a folder.") from error
    return Path(value)


def _setting(options, experiment: Experiment) -> Setting:
    data = experiment.data if options.data is None else options.data
    model = experiment.model if options.model is None else options.model
    if experiment.model == "none":
        _choice("MODEL", model, ["none"])
    else:
        _choice("MODEL", model, discovery.model_names())
    _choice("BACKEND", options.backend, BACKENDS)
    _check_data_name(data)
    return Setting(_choice("SCALE", options.scale, experiment.scales), data, model, options.backend)


def _check_data_name(data: str) -> None:
    from lab.data.loading import UnknownData, check, names

    if not NAME.fullmatch(data):
        raise nearest("DATA", data, names())
    try:
        check(data)
    except UnknownData as error:
        raise UsageError(str(error)) from error


def _check_launcher(options) -> None:
    if _choice("LAUNCHER", options.launcher, LAUNCHERS) != "ray":
        return
    if not re.fullmatch(r"([\w.-]{1,253}:\d{1,5})?", options.ray_address, re.ASCII):
        raise UsageError(
            f"RAY_ADDRESS={options.ray_address[:60]!r} must be host:port of a Ray cluster, "
            "as `ray start --head` tells it. Run this on one of its nodes: `ray://` is not enough."
        )
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "LAUNCHER=ray needs Ray: `make experiment LAUNCHER=ray ...` installs it; without make, "
            "`pip install -r requirements/ray.txt` does."
        )


def _experiment(options) -> int:
    name = _choice("NAME", options.name, discovery.experiment_names())
    experiment = discovery.load_experiment(name)
    from lab.data.loading import NotPrepared
    from lab.engines.training import ENGINES

    try:
        setting = _setting(options, experiment)
    except NotPrepared as error:
        return _say(error, FAILED)
    _choice("ENGINE", options.engine, ENGINES)
    if options.engine == "stacked" and setting.backend != "jax":
        raise UsageError(f"ENGINE=stacked needs BACKEND=jax. Received: BACKEND={setting.backend}.")
    _check_launcher(options)
    declared = experiment.scales[setting.scale]["seeds"]
    seeds = declared if options.seeds is None else _number("SEEDS", options.seeds, MOST_SEEDS)
    if _choice("UNTIL", options.until, ("", "decided")) and options.seeds is not None:
        looks = experiment.looks_at(setting.scale)
        said = ", ".join(map(str, looks))
        raise UsageError(
            f"UNTIL=decided looks at {said} seeds, as {name} declares: leave SEEDS out. "
            f"Received: SEEDS={options.seeds[:20]}."
        )
    jobs = None if options.jobs is None else _number("JOBS", options.jobs, MOST_JOBS)
    limit = None if options.limit is None else _number("LIMIT", options.limit, MOST_SECONDS)
    results = _results_folder(options.results)

    from lab.sweeps import running

    asked = (name, experiment, setting, seeds, jobs, options.engine, results, limit)
    return running.run(
        running.Order(
            *(*asked, options.launcher, options.ray_address),
            keep_stale=_flag("KEEP_STALE", options.keep_stale),
            until_decided=options.until == "decided",
        ),
        dry=_flag("DRY", options.dry),
    )


def _list(options) -> int:
    from lab.listing import show

    return show(_results_folder(options.results))


def _report(options) -> int:
    from lab.report import readme, writing

    results = _results_folder(options.results)
    try:
        writing.write(results)
        readme.update(results)
    except OSError as error:
        return _say(error, FAILED)
    print(writing.summary(results))
    return DONE


def _watch(options) -> int:
    from lab.report import watch

    port = None if options.port is None else _number("PORT", options.port, 65535)
    return watch.serve(_results_folder(options.results), port)


def _compact(options) -> int:
    from lab.records import store

    folder = _results_folder(options.results)
    try:
        print(f"Compressed {store.compact(folder)} trials in {folder}.")
    except (OSError, store.Broken) as error:
        return _say(error, FAILED)
    return DONE


def _data(options) -> int:
    from lab.data.loading import NotPrepared, UnknownData, prepare

    if not NAME.fullmatch(options.data):
        from lab.data.loading import names

        raise nearest("DATA", options.data, names())
    try:
        where = prepare(options.data)
        print(f"{options.data} is prepared: {where}" if where else f"{options.data} is built in.")
    except UnknownData as error:
        raise UsageError(str(error)) from error
    except (NotPrepared, OSError, RuntimeError) as error:
        return _say(error, FAILED)
    return DONE


def _doctor(options) -> int:
    from lab.doctor import examine

    return examine(_results_folder(options.results))
