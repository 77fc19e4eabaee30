"""Many run folders of a sweep into one table with charts.

Knows what a run folder holds (``summary.json``, ``requests.parquet``, ``.hydra/overrides.yaml``,
the marker ``DONE`` or ``FAILED`` / ``error.txt``). Computes no metric: every number was written
by the run itself. Runs that failed or never ended are listed with their reason, not hidden.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from rich.console import Console

from experiments.compare_table import markdown, print_comparison
from experiments.figures import comparison, curves, style, titles
from experiments.run_folder import CONFIG
from experiments.tables import read_requests_frame
from experiments.terminal import open_console
from workbench.errors import WorkbenchError

FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
MAX_OVERLAY_RUNS = 8
MAX_OVERLAY_BYTES = 200_000_000


@dataclass(frozen=True)
class Sweep:
    """Runs below ``folder``: ``runs`` has one row a run that finished, ``failed`` the others.

    Columns of ``runs``: run (path below the folder), label, one a config override (its key), then
    the keys of ``summary.json``. Columns of ``failed``: run, status, error, and the overrides.
    ``varying``: the override keys that differ between the runs.
    """

    folder: Path
    runs: pd.DataFrame
    failed: pd.DataFrame
    varying: list[str]


def collect_runs(folder: str | os.PathLike[str]) -> Sweep:
    """Read every run folder at or below ``folder``; raises WorkbenchError if there is none."""
    root = Path(folder)
    finished: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    overrides: list[dict[str, str]] = []
    for path in _run_folders(root):
        row, status = _read_run(root, path)
        (finished if status == FINISHED else failed).append(row)
        overrides.append(row.pop("overrides"))
        row["_overrides"] = overrides[-1]
    if not overrides:
        raise WorkbenchError(
            f"{root}: no run folder in it; name the folder of a sweep, whose runs hold "
            "summary.json or .hydra/overrides.yaml"
        )
    varying = _varying(overrides)
    return Sweep(root, _frame(finished, varying), _frame(failed, varying), varying)


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders that look like runs, in natural order (2 before 10)."""
    found = []
    for directory, names, files in os.walk(root):
        if ".hydra" in names or {"summary.json", "DONE", "FAILED"} & set(files):
            found.append(Path(directory))
        names[:] = [n for n in names if not n.startswith(".") and n != "charts"]
    return iter(sorted(found, key=_natural))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in path.parts]


def _read_run(root: Path, path: Path) -> tuple[dict[str, Any], str]:
    """(row, status); the row holds the summary, or the error of a run without one."""
    row: dict[str, Any] = {"run": str(path.relative_to(root)), "overrides": _overrides(path)}
    if (path / "DONE").exists():
        try:
            row |= json.loads((path / "summary.json").read_text())
        except (OSError, ValueError, TypeError) as error:
            return row | {"status": FAILED, "error": f"summary.json: {error}"}, FAILED
        return row, FINISHED
    for name in ("error.txt", "FAILED"):
        file = path / name
        if file.exists():
            text = file.read_text(errors="replace").strip()
            return row | {"status": FAILED, "error": text.split("\n")[0] or "no message"}, FAILED
    reason = "neither DONE nor FAILED: still running, or killed"
    return row | {"status": UNFINISHED, "error": reason}, UNFINISHED


def _overrides(path: Path) -> dict[str, str]:
    """Key to value of ``.hydra/overrides.yaml``; prefixes + ++ ~ dropped, last one wins."""
    file = path / ".hydra" / "overrides.yaml"
    if not file.exists():
        return {}
    items = [str(item).lstrip("+~") for item in OmegaConf.load(file) or []]
    pairs = (item.partition("=") for item in items)
    return {key: value if sign else "removed" for key, sign, value in pairs}


def _varying(overrides: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for run in overrides for key in run)
    return [key for key in keys if len({run.get(key) for run in overrides}) > 1]


def _frame(rows: list[dict[str, Any]], varying: Sequence[str]) -> pd.DataFrame:
    """Frame of rows with their overrides as columns, after run and label."""
    flat = []
    for row in sorted(rows, key=lambda row: _order(row["_overrides"], varying)):
        given = row.pop("_overrides")
        head = {"run": row.pop("run"), "label": _label(given, varying)}
        flat.append(head | {k: _number(v) for k, v in given.items()} | row)
    frame = pd.DataFrame(flat)
    if frame.empty:
        return pd.DataFrame(columns=["run", "label", *varying])
    same = frame["label"].duplicated(keep=False)
    frame.loc[same, "label"] = frame["label"][same] + " #" + frame["run"][same]
    frame["label"] = frame["label"].str.strip()
    return frame


def _order(overrides: Mapping[str, str], varying: Sequence[str]) -> list[tuple[int, float, str]]:
    """Sorting key of a run: what varies, key by key; numbers by their size, then words."""
    values = [_number(overrides.get(key, "")) for key in varying]
    return [(1, 0.0, v) if isinstance(v, str) else (0, float(v), "") for v in values]


def _label(overrides: Mapping[str, str], varying: Sequence[str]) -> str:
    """Short name of a run: the values of what varies, with the key where the value needs it."""
    parts = []
    for key in varying:
        if key in overrides:
            value, name = overrides[key], key.rsplit(".", 1)[-1]
            speaks = "." not in key and isinstance(_number(value), str)
            parts.append(value if speaks else f"{name}={value}")
    return ", ".join(parts) or "default"


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def mean_over_seeds(sweep: Sweep) -> pd.DataFrame:
    """One row for each setting: numeric metrics averaged over the runs that differ in seed only."""
    keys = [k for k in sweep.varying if k != "seed" and k in sweep.runs]
    if "seed" not in sweep.varying or sweep.runs.empty:
        return sweep.runs
    if not keys:
        return sweep.runs
    groups = sweep.runs.groupby(keys, sort=False, dropna=False)
    means = groups.mean(numeric_only=True).reset_index()
    settings = [{k: str(v) for k, v in row.items() if v == v} for row in _rows(means[keys])]
    return means.assign(label=[_label(s, keys) for s in settings])


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def comparison_figures(sweep: Sweep) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of the charts that this sweep calls for, one at a time."""
    runs = mean_over_seeds(sweep)
    if runs.empty:
        return
    if len(runs) <= 40:
        yield "throughput", comparison.metric_bars(runs)
        yield "latency", comparison.latency_percentiles(runs)
        cache = ("prefix_hit_rate", "preemptions", "batch_size_mean", "kv_usage_mean")
        yield "cache_and_batch", comparison.metric_bars(runs, cache, "Cache and batch")
    overlay = _overlay_frames(sweep)
    if overlay:
        yield "latency_cdf", comparison.cdf_overlay(overlay, labels=list(sweep.runs["label"]))
    varying = [k for k in sweep.varying if k != "seed"]
    yield from _curve_figures(runs, varying, _what_arrives(sweep))


def _what_arrives(sweep: Sweep) -> str:
    """ "conversations" where a rate of the workload counts those, else "requests"."""
    path = sweep.folder / str(sweep.runs["run"].iloc[0]) / CONFIG
    if not path.is_file():
        return "requests"
    config = OmegaConf.load(path)
    sharing = str(OmegaConf.select(config, "workload.sharing._target_"))
    in_turns = OmegaConf.select(config, "workload.multi_turn") or sharing.endswith(".MultiTurn")
    return "conversations" if in_turns else "requests"


def _curve_figures(
    runs: pd.DataFrame, varying: Sequence[str], arrivals: str
) -> Iterator[tuple[str, Figure]]:
    """Curves over each swept number; a rate also gets latency against throughput and SLO."""
    for sweep in varying:
        if sweep not in runs or pd.to_numeric(runs[sweep], errors="coerce").nunique() < 3:
            continue
        others = [k for k in varying if k != sweep and k in runs]
        settings = [{k: str(v) for k, v in row.items() if v == v} for row in _rows(runs[others])]
        table = runs.assign(series=[_label(s, others) for s in settings])
        group = "series" if others else None
        name = sweep.rsplit(".", 1)[-1]
        title = titles.axis_title(sweep, arrivals)
        yield f"by_{name}", curves.metrics_vs_parameter(table, sweep, group, title)
        if titles.is_rate(sweep):
            yield "latency_vs_throughput", curves.latency_vs_throughput(table, sweep, group, title)
            if "slo_attainment" in table and table["slo_attainment"].notna().any():
                yield "slo_attainment", curves.slo_attainment(table, sweep, group, title)


def _overlay_frames(sweep: Sweep) -> dict[str, pd.DataFrame]:
    """Requests of each run for the overlay, or nothing where that would be too much."""
    paths = [sweep.folder / run / "requests.parquet" for run in sweep.runs["run"]]
    if not 1 < len(paths) <= MAX_OVERLAY_RUNS or not all(p.exists() for p in paths):
        return {}
    if sum(p.stat().st_size for p in paths) > MAX_OVERLAY_BYTES:
        return {}
    frames = (read_requests_frame(p) for p in paths)
    return dict(zip((str(x) for x in sweep.runs["label"]), frames, strict=True))


def write_comparison(sweep: Sweep) -> list[Path]:
    """Write comparison.csv, comparison.md and charts/*.png into the folder; returns the paths."""
    charts = sweep.folder / "charts"
    paths = [sweep.folder / "comparison.csv", sweep.folder / "comparison.md"]
    # nullable dtypes keep integers whole where failed runs have none
    frames = [frame.convert_dtypes() for frame in (sweep.runs, sweep.failed)]
    pd.concat(frames).to_csv(paths[0], index=False)
    charts.mkdir(exist_ok=True)
    for name, figure in comparison_figures(sweep):
        paths.append(charts / f"{name}.png")
        style.save(figure, paths[-1])
    paths[1].write_text(
        markdown(sweep.runs, sweep.failed, sweep.varying, [p.name for p in paths[2:]])
    )
    return paths


def main(folder: str | os.PathLike[str], console: Console | None = None) -> int:
    """Compare the runs below ``folder``: print the table, write the files.

    Returns the exit status: 1 if a run has no result, be it failed, killed or still running.
    """
    console = console or open_console()
    sweep = collect_runs(folder)
    print_comparison(sweep.runs, sweep.failed, sweep.varying, console)
    write_comparison(sweep)
    console.print(f"charts: {sweep.folder / 'charts'}", markup=False, highlight=False)
    return int(len(sweep.failed) > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare the runs of a sweep.")
    parser.add_argument("folder", help="folder that holds the run folders")
    try:
        raise SystemExit(main(parser.parse_args().folder))
    except WorkbenchError as error:
        raise SystemExit(str(error)) from None
