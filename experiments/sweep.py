"""What a sweep adds to its jobs: names of the run folders, and the comparison at the end.

Knows Hydra's sweep folder and the markers of the runs in it. A job's folder is named by a hash of
its whole config, so the same sweep started again finds its finished jobs.
"""

import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, cast

from hydra.experimental.callback import Callback
from omegaconf import Container, DictConfig, OmegaConf

from experiments.run_folder import FAILED, PRESENTATION_KEYS, RunFolder, fingerprint, run_folders

MAX_NAME = 80
WIDTH_OF_A_LOG = 140


def run_name(*, _root_: Container) -> str:
    """Folder name of a job: its overrides, shortened to what a path may hold, and its hash.

    Used as the resolver `${run_name:}` on the composed config of one job. A folder that the sweep
    has for this config already is kept, whatever it is called.
    """
    config = cast(DictConfig, _root_)
    plain = cast(dict[str, Any], OmegaConf.to_container(_without_hydra(config), resolve=True))
    digest = fingerprint(plain)[:8]
    for earlier in sorted(Path(config.hydra.sweep.dir).glob(f"*{digest}")):
        return earlier.name
    overrides = cast(list[str], OmegaConf.to_container(config.hydra.overrides.task))
    words = [_short(o) for o in overrides if o.partition("=")[0] not in PRESENTATION_KEYS]
    label = re.sub(r"[^\w=.,+-]+", "_", ",".join(words))[:MAX_NAME].strip(",._")
    return f"{label}-{digest}" if label else digest


def _short(override: str) -> str:
    key, _, value = override.lstrip("+").partition("=")
    return f"{key}={Path(value).name}" if "/" in value else f"{key}={value}"


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def register_resolvers() -> None:
    """Makes `${run_name:}` known. May be called again."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True, use_cache=False)


class SweepReport(Callback):
    """Hydra callback: after a multirun writes the comparison and tells how many jobs failed."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the program with status 1 if a job of this sweep failed."""
        folder = Path(config.hydra.sweep.dir)
        try:
            report(folder)
        except Exception:  # Hydra would turn it into a warning
            traceback.print_exc()
            sys.exit(1)
        failed = failed_since(folder, self._started)
        if failed:
            jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            print(f"error: {jobs} of the sweep failed:", file=sys.stderr)
            for run in failed:
                print(f"  {run.path.name}: {run.failure()}", file=sys.stderr)
            sys.exit(1)


def report(folder: Path) -> None:
    """Writes the comparison of all runs below a folder, prints it and names the charts."""
    from rich.console import Console

    from experiments.compare import main as compare

    # a log or a pipe has no width of its own: leave room for every column
    compare(folder, Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_LOG))


def failed_since(folder: Path, started: float) -> list[RunFolder]:
    """Runs below a folder whose failure was recorded after a time (seconds of the epoch)."""
    return [
        run
        for run in run_folders(folder)
        if (run.path / FAILED).exists() and (run.path / FAILED).stat().st_mtime >= started - 1.0
    ]
