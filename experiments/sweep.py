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
from omegaconf.errors import OmegaConfBaseException

from experiments.explain import explain
from experiments.run_folder import FAILED, PRESENTATION_KEYS, RunFolder, fingerprint, run_folders
from experiments.schema import run_settings

MAX_NAME = 120


def run_name(*, _root_: Container) -> str:
    """Folder name of a job: what sets it apart from the sweep's other jobs, and its hash.

    Used as the resolver `${run_name:}` on the composed config of one job. A folder that the sweep
    has for this config already is kept, whatever it is called.
    """
    config = cast(DictConfig, _root_)
    plain = cast(dict[str, Any], OmegaConf.to_container(_without_hydra(config), resolve=True))
    digest = fingerprint(plain)[:8]
    for earlier in sorted(Path(config.hydra.sweep.dir).glob(f"*{digest}")):
        return earlier.name
    overrides = cast(list[str], OmegaConf.to_container(config.hydra.overrides.task))
    common = _common_overrides(Path(config.hydra.sweep.dir))
    apart = [o for o in overrides if o.lower() not in common]
    words = [_short(o) for o in apart if _key(o) not in PRESENTATION_KEYS]
    label = re.sub(r"[^\w=.,+-]+", "_", _joined(words)).strip(",._")
    return f"{label}-{digest}" if label else digest


def _common_overrides(folder: Path) -> set[str]:
    """Overrides that every job of the sweep has: those that its command gave one value.

    In small letters, for Hydra writes a job's `true` as `True`.
    """
    try:
        sweep = OmegaConf.load(folder / "multirun.yaml")  # Hydra writes it before the first job
        return {str(override).lower() for override in sweep.hydra.overrides.task}
    except (FileNotFoundError, OmegaConfBaseException):
        return set()


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _short(override: str) -> str:
    value = override.partition("=")[2]
    return f"{_key(override).rpartition('.')[2]}={Path(value).name if '/' in value else value}"


def _joined(words: list[str]) -> str:
    """The words with commas, as many as fit; the number of those that do not."""
    for count in range(len(words), 0, -1):
        rest = [f"{len(words) - count}_more"] if count < len(words) else []
        text = ",".join([*words[:count], *rest])
        if len(text) <= MAX_NAME:
            return text
    return words[0][:MAX_NAME] if words else ""


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def register_resolvers() -> None:
    """Makes `${run_name:}` known. May be called again."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True, use_cache=False)


class SweepReport(Callback):
    """Hydra callback: checks the settings of a single run before its folder is begun.

    After a multirun it writes the comparison and tells how many jobs failed.
    """

    def __init__(self) -> None:
        self._started = 0.0

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the program with status 2 if the top of the config is not what it must be."""
        try:
            run_settings(config)
        except Exception as error:  # Hydra would turn it into a warning
            print(f"error: {explain(error)}", file=sys.stderr)
            sys.exit(2)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the program with status 1 if the table has a run without a result."""
        folder = Path(config.hydra.sweep.dir)
        try:
            status = report(folder)
        except Exception:  # Hydra would turn it into a warning
            traceback.print_exc()
            sys.exit(1)
        failed = failed_since(folder, self._started)
        if failed:
            jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            print(f"error: {jobs} of the sweep failed:", file=sys.stderr)
            for run in failed:
                print(f"  {run.path.name}: {run.failure()}", file=sys.stderr)
        elif status:
            print(f"error: {folder} holds runs without a result, see above", file=sys.stderr)
        if failed or status:
            sys.exit(1)


def report(folder: Path) -> int:
    """Writes the comparison of all runs below a folder, prints it and names the charts.

    Returns the exit status: 1 if a run has failed or is not finished.
    """
    from experiments.compare import main as compare

    return compare(folder)


def failed_since(folder: Path, started: float) -> list[RunFolder]:
    """Runs below a folder whose failure was recorded after a time (seconds of the epoch)."""
    return [
        run
        for run in run_folders(folder)
        if (run.path / FAILED).exists() and (run.path / FAILED).stat().st_mtime >= started - 1.0
    ]
