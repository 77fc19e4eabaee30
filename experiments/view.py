"""Shows the recorded steps of a run on the page of the live view: `workbench view RUN_FOLDER`.

Knows the files of a run folder, and how a page is written or served. A recording shows everything;
without one there is what the tables of the run tell.
"""

import argparse
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.program import run_program
from experiments.run_folder import RECORDING, REQUESTS, STEPS, RunFolder, write_atomically
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    from experiments.viewing.recorded_run import RecordedRun, Window

LONGEST = 20_000
EXAMPLES = """\
examples:
  workbench view outputs/2026-01-31/12-00-00               serve the page on this machine
  workbench view outputs/2026-01-31/12-00-00 --out run.html
                                                           one file that needs nothing else
  workbench view RUN --start 10000 --steps 5000            other steps of a long run

A run of the engine with backend.record=true shows every request and every block of each step. Of
other runs, simulated ones among them, the page shows what requests.parquet and steps.parquet hold.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 0 done, 2 it could not be done as asked."""
    parser = _parser()
    return run_program(arguments, parser.format_help(), lambda argv: _view(parser.parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workbench view",
        description="The recorded steps of a run, on the page of a server's live view.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a run folder, or a recording.jsonl.gz")
    parser.add_argument("--out", type=Path, help="write the page to this file, and serve nothing")
    parser.add_argument("--start", type=int, default=0, help="first step to show (0)")
    parser.add_argument(
        "--steps", type=int, default=3000, help=f"how many steps to show (3000, at most {LONGEST})"
    )
    parser.add_argument("--replica", type=int, default=0, help="which replica of a cluster (0)")
    parser.add_argument("--host", default="127.0.0.1", help="where to serve the page (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="its port (a free one)")
    return parser


def _view(options: argparse.Namespace) -> int:
    page = make_page(options.folder, options.start, options.steps, options.replica)
    if options.out is not None:
        write_atomically(options.out, page)
        print(options.out)
        return 0
    with page_server(page, options.host, options.port) as server:
        port = server.server_address[1]
        print(f"http://{options.host}:{port}/view  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0


def make_page(folder: Path, start: int = 0, num_steps: int = 3000, replica: int = 0) -> str:
    """The page of a run, whole in itself.

    Args:
        folder: The run folder, or a recording.
        start: First step to show.
        num_steps: How many.
        replica: Whose steps; a recording has one replica only.

    Raises:
        WorkbenchError: There is nothing to show, or it cannot be read.
    """
    try:
        from engine.server.view.page import recorded_page
        from experiments.viewing.recorded_run import Window
    except ModuleNotFoundError as error:
        raise WorkbenchError(f"the page needs {error.name}: pip install -e '.[serve]'") from error
    if not 1 <= num_steps <= LONGEST or start < 0 or replica < 0:
        raise ConfigError(
            f"--start {start} --steps {num_steps} --replica {replica}: start and replica must be "
            f"at least 0, and steps 1 to {LONGEST}, as much as a page can hold"
        )
    run = _read(folder, Window(start, num_steps), replica)
    if not run.num_steps:
        raise ConfigError(
            f"{folder} has 0 steps of replica {replica} (a load test has none at all, as a client "
            "sees none): name another replica, or a run of the engine or the simulator"
        )
    if not run.ticks:
        raise ConfigError(
            f"{folder} has {run.num_steps} steps of replica {replica}, none of them from step "
            f"{start} on: choose others with --start and --replica"
        )
    if len(run.ticks) < run.num_steps:
        last = start + len(run.ticks) - 1
        run.notes.append(
            f"Steps {start:,} to {last:,} of {run.num_steps:,} are shown; --start and --steps "
            "choose others."
        )
    name = folder.resolve().name
    return recorded_page(f"Run {name}", run.as_json(f"Run {name}", *_described(folder)))


def _read(folder: Path, window: "Window", replica: int) -> "RecordedRun":
    from experiments.viewing.replayed_run import replayed_run
    from experiments.viewing.table_run import table_run

    if folder.is_file():
        return replayed_run(folder, window)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the folder of a run")
    if (folder / RECORDING).is_file() and not replica:
        return replayed_run(folder / RECORDING, window)
    lacking = RunFolder(folder).lacks((REQUESTS, STEPS))
    if lacking:
        raise ConfigError(
            f"{folder} has no {lacking[0]}: name the folder of one finished run, not of a sweep"
        )
    run = table_run(folder / REQUESTS, folder / STEPS, window, replica)
    run.num_kv_blocks, run.block_size = _cache_of(folder)
    return run


def _cache_of(folder: Path) -> tuple[int, int]:
    """(KV blocks, tokens of each), 0 where the run folder does not tell."""
    from omegaconf import OmegaConf

    run = RunFolder(folder)
    num_blocks = 0 if run.lacks(["summary.json"]) else run.summary().get("num_kv_blocks") or 0
    config: Any = {} if run.lacks(["config.yaml"]) else OmegaConf.load(folder / "config.yaml")
    return int(num_blocks), int((config.get("cache") or {}).get("block_size") or 16)


def _described(folder: Path) -> tuple[str, str]:
    """A sentence on the run, and what to call it in the window's title."""
    from experiments.report.run_page import describe

    text = describe(folder) if folder.is_dir() else ""
    return text or "Recorded steps", folder.resolve().name


def page_server(page: str, host: str, port: int) -> ThreadingHTTPServer:
    """A server that shows one page under every path; the caller runs and closes it.

    Raises:
        ConfigError: It cannot listen there.
    """
    data = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody wants to know."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
