"""`workbench bench serve`: load a server and tell what its clients see.

Knows how a command line becomes a measurement, a table and files. Every part of it is elsewhere.
"""

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench.arguments import serve_parser
from experiments.bench.measure import Measured, measure
from experiments.bench.plan import Plan, make_plan
from experiments.bench.progress_line import progress_line
from experiments.bench.prompts import Vocabulary
from experiments.bench.server_facts import NoServerError
from experiments.bench.settings import BenchSettings, settings_of
from experiments.bench.timers import loop_factory
from experiments.explain import explain, is_expected
from experiments.program import FAILED, INTERRUPTED, USAGE
from experiments.provenance import Stopwatch
from experiments.run_folder import RunFolder
from workbench.errors import ConfigError

# flags of the address, of files and of the terminal
SILENT = frozenset({
    "base_url", "host", "port", "backend", "out", "save_result", "result_dir", "result_filename",
    "save_detailed", "no_charts", "disable_tqdm", "percentile_metrics", "metric_percentiles",
    "goodput",
})  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 0 done, 1 no request succeeded, 2 wrong usage, 130 Ctrl-C."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = serve_parser().parse_intermixed_args(argv)
        return _run(settings_of(options), _folder(options.out, options.save_result))
    except KeyboardInterrupt:
        print("interrupted before anything was measured", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"error: {explain(error, argv)}", file=sys.stderr)
        return FAILED if isinstance(error, NoServerError) else USAGE


def _folder(out: str | None, is_saved: bool) -> RunFolder | None:
    """Where the files go; None: nowhere."""
    if out is None and not is_saved:
        return None
    return RunFolder(Path(out or time.strftime("outputs/%Y-%m-%d/%H-%M-%S")))


def _run(settings: BenchSettings, folder: RunFolder | None) -> int:
    """Measure, print and write; the exit status."""
    stopwatch = Stopwatch()
    plan = make_plan(settings)
    if folder is not None:
        _begin(folder)  # before the measurement, which a folder that is taken would waste
    try:
        cpu = Stopwatch()
        measured = _measured(settings, plan)
        client_cpu_s = cpu.cpu_s()
        told = _told(settings, plan, measured)
        if folder is not None:
            _write(settings, plan, measured, folder, told, stopwatch, client_cpu_s)
            print(f"Everything is in {folder.path}")
    except Exception as error:
        if folder is not None:
            folder.fail(explain(error), error)
        raise
    if measured.result.interrupted:
        return INTERRUPTED
    return FAILED if measured.result.num_failed == len(measured.result.records) else 0


def _begin(folder: RunFolder) -> None:
    try:
        folder.start()
    except ConfigError as error:
        raise ConfigError(str(error).replace("hydra.run.dir=", "--out ")) from None


def _measured(settings: BenchSettings, plan: Plan) -> Measured:
    if settings.tokenizer is not None:
        vocabulary = Vocabulary.of_tokenizer(settings.tokenizer)
    else:
        vocabulary = Vocabulary.of_size(settings.vocab_size)
    with (
        progress_line(enabled=not settings.flags["disable_tqdm"]) as progress,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        return runner.run(measure(settings, plan, vocabulary, tell=_say, progress=progress))


def _say(line: str) -> None:
    print(line, flush=True)


def _told(settings: BenchSettings, plan: Plan, measured: Measured) -> dict[str, Any]:
    """Prints the table, writes vLLM's result file if it was asked for; its content."""
    from experiments.bench.run_files import write_vllm_file
    from experiments.bench.table import print_result
    from experiments.bench.vllm_names import vllm_result
    from experiments.terminal import open_console

    shown, flags = (settings.metrics, settings.percentiles), settings.flags
    print_result(measured.result, plan.slo, *shown, open_console())
    head = _head(settings, measured)
    is_detailed = flags["save_detailed"]
    told = vllm_result(measured.result, plan.slo, head, *shown, is_detailed=is_detailed)
    if flags["result_dir"] or flags["result_filename"]:
        print(f"wrote {write_vllm_file(flags['result_dir'], flags['result_filename'], told)}")
    return told


def _write(
    settings: BenchSettings,
    plan: Plan,
    measured: Measured,
    folder: RunFolder,
    told: dict[str, Any],
    stopwatch: Stopwatch,
    client_cpu_s: float,
) -> None:
    """The files of the run folder."""
    from experiments.bench.run_files import write_run

    facts = {
        "backend": "client",
        "server": str(settings.target),
        "endpoint": settings.endpoint,
        "served_model": measured.model,
        "event_loop": loop_factory().__module__.partition(".")[0],
        "client_cpu_s": client_cpu_s,
    }
    write_run(
        folder,
        measured.result,
        slo=plan.slo,
        config=plan.config | {"bench": _flags_told(settings)},
        told=told,
        facts=facts,
        stopwatch=stopwatch,
        charts=not settings.flags["no_charts"],
    )


def _head(settings: BenchSettings, measured: Measured) -> dict[str, Any]:
    """What was asked for, under vLLM's names."""
    flags, arrivals = settings.flags, settings.arrivals
    rate = None if arrivals is None else arrivals.request_rate
    head = {
        "endpoint_type": flags["backend"],
        "backend": flags["backend"],
        "label": flags["label"],
        "model_id": measured.model,
        "tokenizer_id": settings.tokenizer,
        "num_prompts": len(measured.result.records),
        **flags["metadata"],
        "request_rate": "inf" if rate is not None and math.isinf(rate) else rate,
        "burstiness": flags["burstiness"],
        "max_concurrency": settings.max_concurrency,
    }
    if arrivals is not None and arrivals.ramp is not None:
        head["ramp_up_strategy"] = arrivals.ramp
        head["ramp_up_start_rps"] = arrivals.ramp_start
        head["ramp_up_end_rps"] = arrivals.ramp_end
    return head


def _flags_told(settings: BenchSettings) -> dict[str, Any]:
    """What sets one load test apart from others: the flags that are not at their defaults."""
    parser = serve_parser()
    words = dict(word.lstrip("+~").partition("=")[::2] for word in settings.overrides)
    told: dict[str, Any] = {"server": str(settings.target), "endpoint": settings.endpoint}
    if settings.arrivals is not None:
        told["request_rate"] = settings.flags["request_rate"] or "inf"
    for name, value in settings.flags.items():
        if name not in SILENT and value != parser.get_default(name) and value not in ([], {}):
            told[name] = str(value) if value == math.inf else value
    return told | words
