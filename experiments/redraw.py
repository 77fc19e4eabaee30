"""Draws the charts of finished runs again, from the files of their folders alone."""

from collections.abc import Iterator
from pathlib import Path

from experiments.figures import save_run_charts
from experiments.rerun import saved_config
from experiments.run_folder import CHARTS, REQUESTS, STEPS, RunFolder, run_folders
from experiments.schema import settings
from experiments.tables import read_requests_frame, read_steps_frame
from workbench.errors import ConfigError


def redraw(folder: Path) -> Iterator[Path]:
    """Draws the charts of every finished run at or below a folder; gives the folders of charts.

    Raises ConfigError if there is none.
    """
    finished = [run for run in run_folders(folder) if run.marker() is not None]
    if not finished:
        raise ConfigError(f"{folder}: no finished run in it (a folder with DONE and {REQUESTS})")
    for run in finished:
        yield _redraw(run)


def _redraw(run: RunFolder) -> Path:
    save_run_charts(
        run.path / CHARTS,
        read_requests_frame(run.path / REQUESTS),
        read_steps_frame(run.path / STEPS),
        slo=settings(saved_config(run.path), "slo"),
        num_kv_blocks=run.summary().get("num_kv_blocks"),
    )
    return run.path / CHARTS
