"""Whether a sweep may keep a run that it finds in a job's folder.

Knows what must be there and unchanged: the marker of exactly this config, the files that a finished
run has, the files that it has read. Charts and a timeline that are missing are drawn from its
tables. Says in a line why a run is kept or runs again.
"""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.inputs import changes, inputs_of, missing, with_absolute_paths
from experiments.provenance import code_revision
from experiments.run_folder import (
    CHARTS,
    RECORDING,
    REQUESTS,
    RESULTS,
    STEPS,
    TIMELINE,
    RunFolder,
    fingerprint,
)


def is_kept(folder: RunFolder, config: DictConfig) -> bool:
    """Whether the folder holds the finished run of this config; what only shows it is added."""
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if not folder.is_finished(fingerprint(plain)):
        return False
    if reason := _why_again(folder, plain):
        print(f"running again, for {reason}: {folder.path}", flush=True)
        return False
    _draw_missing(folder, charts=plain["charts"], timeline=plain["timeline"])
    print(f"already done{_note(folder, plain)}: {folder.path}", flush=True)
    return True


def _why_again(folder: RunFolder, plain: Mapping[str, Any]) -> str | None:
    """Why a finished run does not count, or None."""
    records = (plain.get("backend") or {}).get("record", False)
    if plain["charts"] and plain.get("uncertainty") and folder.lacks([CHARTS]):
        return "its bands are drawn as it runs"
    if gone := folder.lacks((*RESULTS, RECORDING) if records else RESULTS):
        return f"its {gone[0]} is gone"
    before, now = folder.inputs(), inputs_of(with_absolute_paths(plain))
    if before is None:
        return "it did not record what it has read" if now else None
    # what is gone cannot be read again: the results of it are all there is
    told = [] if missing(before, now) else changes(before, now)
    return told[0] if told else None


def _note(folder: RunFolder, plain: Mapping[str, Any]) -> str:
    """What one should know of a run that is kept."""
    if told := changes(folder.inputs() or [], inputs_of(with_absolute_paths(plain))):
        return f", though {told[0]}"
    revision = (folder.marker() or {}).get("revision")
    if revision == code_revision():
        return ""
    return f" by another revision of the code ({revision}); resume=false runs it again"


def _draw_missing(folder: RunFolder, *, charts: bool, timeline: bool) -> None:
    """Adds charts and timeline that are asked for and not there, from the run's tables."""
    if charts and folder.lacks([CHARTS]):
        from experiments.redraw import redraw

        list(redraw(folder.path))
    if timeline and folder.lacks([TIMELINE]):
        from experiments.tables import read_requests, read_steps
        from experiments.timeline import write_timeline

        records = read_requests(folder.path / REQUESTS)
        write_timeline(folder.path / TIMELINE, records, read_steps(folder.path / STEPS))
