"""Runs the config of a run folder again, from the folder alone.

Knows that the new run uses the code that is installed now, and that the files of the first run may
have changed; `provenance.json` of both folders says whether they are the same.
"""

import json
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.explain import explain
from experiments.inputs import changes, inputs_of, with_absolute_paths
from experiments.job import run_into
from experiments.provenance import Stopwatch, code_revision
from experiments.run_folder import CONFIG, ERROR, PROVENANCE, RunFolder
from workbench.errors import ConfigError, WorkbenchError

ALLOW = "--allow-changed-inputs"


def rerun(folder: Path, out: Path, *, allow_changed_inputs: bool = False) -> str:
    """Repeats the run of `folder` into `out`; returns what to tell the user.

    The rows of `requests.parquet` and `steps.parquet` come out the same to the byte if the code is
    the same. Raises ConfigError where a file that the run has read is no longer as it was, unless
    that is allowed.
    """
    config = saved_config(folder)
    if "bench" in config:
        raise ConfigError(
            f"{folder} is a load test of a running server: start the server and repeat its command,"
            f" which {PROVENANCE} keeps"
        )
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is the folder to repeat: name another one")
    note = _inputs_note(folder, config, allow_changed_inputs)
    marker = RunFolder(folder).marker() or {}
    stopwatch = Stopwatch(since_process_start=True)
    try:
        run_into(RunFolder(out), config, stopwatch=stopwatch, config_hash=marker.get("config_hash"))
    except WorkbenchError:
        raise
    except Exception as error:
        kept = f" [{out}/{ERROR}]" if (out / ERROR).is_file() else ""
        raise WorkbenchError(f"{explain(error, ['--out', str(out)])}{kept}") from error
    return f"done: {out}{note}{_revision_note(folder)}"


def _inputs_note(folder: Path, config: DictConfig, allowed: bool) -> str:
    """What to say of the files that the run has read. Raises ConfigError where they changed."""
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    before, now = RunFolder(folder).inputs(), inputs_of(with_absolute_paths(plain))
    if before is None:
        return " (the first run did not record what was in the files that it read)" if now else ""
    told = changes(before, now)
    if told and not allowed:
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        raise ConfigError(
            f"{told[0]}{more}, so the run of {folder} cannot be repeated: put back what it read, "
            f"or run on what is there now with {ALLOW}"
        )
    return f" (on other files than the first run: {told[0]})" if told else ""


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
