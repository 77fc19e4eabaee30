"""Runs the config of a run folder again, from the folder alone.

The new run uses the code that is installed
now; `provenance.json` of both folders says whether it is the same.
"""

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.explain import explain
from experiments.job import run_into
from experiments.provenance import Stopwatch, code_revision
from experiments.run_folder import CONFIG, PROVENANCE, RunFolder
from workbench.errors import ConfigError, WorkbenchError


def rerun(folder: Path, out: Path) -> str:
    """Repeats the run of `folder` into `out`; returns what to tell the user.

    The rows of `requests.parquet` and `steps.parquet` come out the same to the byte if the code and
    the files of the workload are the same.
    """
    config = saved_config(folder)
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is the folder to repeat: name another one")
    try:
        run_into(RunFolder(out), config, stopwatch=Stopwatch(since_process_start=True))
    except WorkbenchError:
        raise
    except Exception as error:
        raise WorkbenchError(f"{explain(error)} [{out}/error.txt]") from error
    return f"done: {out}{_revision_note(folder)}"


def saved_config(folder: Path) -> DictConfig:
    """The composed config that a run folder keeps. Raises ConfigError if it has none."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder} is not a run folder: it has no {CONFIG}")
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} holds no config")
    return config


def _revision_note(folder: Path) -> str:
    try:
        before = json.loads((folder / PROVENANCE).read_text(encoding="utf-8")).get("revision")
    except FileNotFoundError:
        return ""
    now = code_revision()
    if before == now:
        return ""
    return f" (by another revision of the code: {now}; the first run was by {before})"
