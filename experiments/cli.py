"""The console script `workbench`: one door to everything that can be run.

Knows the subcommands and hands their arguments on; each command's module is imported when it is
called, so that help is quick.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from experiments.config_dir import FLAGS as CONFIG_DIR
from experiments.config_dir import own_options
from workbench.errors import WorkbenchError

DESCRIPTION = """\
A research workbench for LLM serving. It runs scheduler and KV-cache policies in a simulator, on a
real engine and behind an OpenAI-compatible server, on synthetic workloads or real request traces,
and shows what they do to throughput and latency. No GPU is needed.
"""
EXAMPLES = """\
first steps:
  workbench list                                   what can be chosen
  workbench run                                    one run with the defaults; files go to outputs/
  workbench run queue=fair_share cluster.replicas=2
                                                   the same with other choices
  workbench run -m queue=fcfs,shortest_job_first seed=0,1
                                                   a sweep; files and a comparison go to multirun/
  workbench run -m experiment=demo                 a tour: batching, prefix caching, preemption
  workbench compare multirun/DATE/TIME             the table and the charts of a sweep again
  workbench serve FOLDER                           an OpenAI-compatible server (extra serve)
  workbench serve llama3_8b --backend simulator    the same in simulated time (extra serve)
"""
FAILED = 1
USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: a user's own policies lie there
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv and argv[0] in FORWARDED:
        return _guarded(lambda: _forward(argv[0], argv[1:]))
    parser = _parser()
    if not argv:
        parser.print_help()
        return USAGE
    options = parser.parse_args(argv)
    return _guarded(lambda: options.command(options))


def version() -> str:
    """Name and version of this program, of the checkout if it was never installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"workbench {installed('llm-serving-workbench')}"
    except PackageNotFoundError:
        return "workbench (not installed; run from a checkout)"


def _guarded(command: Callable[[], int]) -> int:
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads (`head`, a pager) has seen enough
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # for the flush at the exit
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
    except FileNotFoundError as error:
        print(f"error: {error.filename}: no such file", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return FAILED


FORWARDED: dict[str, tuple[str, str]] = {
    "run": (
        "experiments.run",
        "run an experiment or, with -m, a sweep (the same as python -m experiments.run)",
    ),
    "serve": (
        "experiments.serve",
        "an OpenAI-compatible server, on the real engine or in simulated time",
    ),
    "route": ("experiments.route", "a router in front of several servers"),
    "bench": (
        "experiments.bench.__main__",
        "load a server (bench serve), or time the engine (bench throughput, bench latency)",
    ),
    "view": ("experiments.view", "the steps of a finished run on the page of the live view"),
    "report": ("experiments.report.__main__", "one HTML page of a run, a sweep or a validation"),
    "capacity": (
        "experiments.capacity.__main__",
        "find the highest request rate that meets an SLO",
    ),
    "calibrate": ("experiments.calibrate", "measure the engine's steps for cost_model=calibrated"),
    "validate": (
        "experiments.validate",
        "the engine beside the simulator that is calibrated on it",
    ),
    "validate-vllm": ("experiments.validate_vllm", "the same with a real vLLM server"),
    "parity": ("experiments.parity", "replay a recorded engine run and compare every decision"),
    "compare-measured": (
        "experiments.compare_measured",
        "a measured vLLM run beside the simulator",
    ),
    "compare-silicon": ("experiments.compare_silicon", "closed-loop points beside the simulator"),
    "conformance": (
        "experiments.conformance",
        "replay scheduler scenarios and compare every decision",
    ),
    "fetch-traces": (
        "experiments.fetch_traces",
        "download the public request traces, with checksums",
    ),
    "bench-scheduler": ("experiments.bench_scheduler", "measure what a scheduling step costs"),
}
"""Commands with a parser of their own: the module whose `main` they are, and the help."""


def _forward(command: str, arguments: Sequence[str]) -> int:
    """Hand the arguments on; the module is imported here, so that help is quick."""
    main: Callable[[Sequence[str]], int] = import_module(FORWARDED[command][0]).main
    return main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (_, text) in FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False)
    listing = commands.add_parser("list", help="show the groups of settings and their options")
    listing.add_argument("group", nargs="?", help="one group; without it, all of them")
    listing.add_argument(
        *CONFIG_DIR, dest="config_dir", metavar="FOLDER", help="with options of your own"
    )
    listing.set_defaults(command=_list)
    plot = commands.add_parser("plot", help="draw the charts of a run folder again")
    plot.add_argument("folder", type=Path, help="a run folder, or a folder that holds some")
    plot.set_defaults(command=_plot)
    compare = commands.add_parser("compare", help="table and charts of several runs")
    compare.add_argument("folder", type=Path, help="a sweep folder, or any that holds run folders")
    compare.set_defaults(command=_compare)
    rerun = commands.add_parser("rerun", help="run the config of a run folder again")
    rerun.add_argument("folder", type=Path, help="the run folder to repeat")
    rerun.add_argument("--out", type=Path, required=True, help="folder for the new run")
    rerun.add_argument(
        "--allow-changed-inputs",
        action="store_true",
        help="run although a file that the run has read has changed",
    )
    rerun.set_defaults(command=_rerun)
    return parser


def _list(options: argparse.Namespace) -> int:
    import difflib

    from experiments.schema import group_options

    groups = group_options()
    if options.config_dir is not None:
        for group, choices in group_options(own_options(options.config_dir)).items():
            groups[group] = dict(sorted({**choices, **groups.get(group, {})}.items()))
    if options.group is None:
        for group, choices in groups.items():
            print(f"{group}: {', '.join(choices)}")
        print("\nworkbench list GROUP says what each option is; choose with GROUP=OPTION")
        return 0
    if options.group not in groups:
        close = difflib.get_close_matches(options.group, list(groups), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(
            f"error: no group {options.group!r}; {hint}groups: {', '.join(groups)}", file=sys.stderr
        )
        return USAGE
    choices = groups[options.group]
    width = max(map(len, choices))
    for name, text in choices.items():
        print(f"{options.group}={name:<{width}}  {text}")
    return 0


def _plot(options: argparse.Namespace) -> int:
    from experiments.redraw import redraw

    for folder in redraw(options.folder):
        print(folder)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from experiments.sweep import report

    return report(options.folder)


def _rerun(options: argparse.Namespace) -> int:
    from experiments.rerun import rerun

    changed = options.allow_changed_inputs
    print(rerun(options.folder, options.out, allow_changed_inputs=changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
