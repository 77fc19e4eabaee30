"""The charts of a validation's page. Knows where the runs lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.validation.compare import ENGINE, SIMULATOR
from experiments.validation.runs import World

CHARTS = "charts"


def band_charts(folder: Path, result: Mapping[str, Any]) -> list[Any]:
    """What was measured, in the simulations' bands."""
    from experiments.figures.style import save
    from experiments.figures.validation_bands import validation_bands
    from experiments.report.page import Chart

    path = folder / CHARTS / "bands.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(validation_bands(result["cases"], result["coverage"]["level"]), path)
    return [Chart("Measured values and the simulator's bands", path)]


def run_charts(folder: Path, cases: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Timelines and distributions of the runs at the highest load, and of one at each other."""
    from experiments.figures.side_by_side import latency_cdfs, timeline_of, timelines
    from experiments.figures.style import save
    from experiments.report.page import Chart

    charts = []
    highest, first = max(c["load"] for c in cases), cases[0]["policy"]
    for case in cases:
        if case["repeat"] or (case["load"] != highest and case["policy"] != first):
            continue
        worlds = [World(folder / "runs" / case["folder"] / name) for name in (ENGINE, SIMULATOR)]
        tables = [(w.requests(), w.steps(), w.summary.get("num_kv_blocks")) for w in worlds]
        stem = f"{case['policy']}_load_{case['load']:g}"
        real, drawn = (timeline_of(r, s, b, tick_s=0.5) for r, s, b in tables)
        for kind, figure in (
            ("timeline", timelines(real, drawn, title=name_of(case))),
            ("cdf", latency_cdfs(tables[0][0], tables[1][0], title=name_of(case))),
        ):
            path = folder / CHARTS / f"{stem}_{kind}.png"
            save(figure, path)
            charts.append(Chart(f"{name_of(case)}: {kind}", path))
    return charts


def name_of(case: Mapping[str, Any]) -> str:
    """Of a run, for people."""
    repeat = f", run {case['repeat'] + 1}" if case["repeat"] else ""
    return f"load {case['load']:g}, {case['policy'].replace('_', ' ')}{repeat}"
