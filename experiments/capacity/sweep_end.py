"""What happens when the search of all configurations has ended: table, charts, page.

Knows the sweep's folder, prices, and which files tell the result.
"""

import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments.capacity.capacity_page import REPORT, write_page_of
from experiments.capacity.charts import figures
from experiments.capacity.results import CAPACITY_CSV, Capacities, csv_table, read_capacities
from experiments.figures import style
from experiments.run_folder import CHARTS, write_atomically
from experiments.sweep import failed_since
from experiments.terminal import open_console, print_numbers

COLUMNS = (
    "configuration",
    "capacity\n1/s",
    "GPUs",
    "output\ntokens/s",
    "US$ a million\noutput tokens",
    "limited by",
)


class CapacityReport(Callback):
    """Hydra callback: after the last search writes the results and tells how many failed."""

    def __init__(self, prices: Mapping[str, float] | None = None, price_source: str = "") -> None:
        self._prices = dict(prices or {})
        self._source = price_source
        self._started = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the program with status 1 if a search of this sweep failed."""
        folder = Path(config.hydra.sweep.dir)
        try:
            capacities = write_results(folder, self._prices, self._source)
            tell(capacities, folder)
        except Exception:  # Hydra would turn it into a warning
            traceback.print_exc()
            sys.exit(1)
        failed = failed_since(folder, self._started)
        if failed:
            print(f"error: {len(failed)} of the configurations failed:", file=sys.stderr)
            for run in failed:
                print(f"  {run.path.name}: {run.failure()}", file=sys.stderr)
            sys.exit(1)


def write_results(folder: Path, prices: Mapping[str, float], source: str) -> Capacities:
    """Writes capacity.csv, the charts and report.html; returns what they show."""
    capacities = read_capacities(folder, prices)
    write_atomically(folder / CAPACITY_CSV, csv_table(capacities).to_csv(index=False))
    charts = folder / CHARTS
    charts.mkdir(exist_ok=True)
    for name, figure in figures(capacities):
        style.save(figure, charts / f"{name}.png")
    write_page_of(folder, folder / REPORT, capacities, prices, source)
    return capacities


def tell(capacities: Capacities, folder: Path) -> None:
    """The table on the terminal, and where the rest is."""
    console = open_console()
    rows = [
        [
            str(row["label"]),
            _shown(row["rate_per_s"]),
            str(row["gpus"]),
            _shown(row["output_tokens_per_s"]),
            _shown(row["cost_per_million_output_tokens"]),
            str(row["limited_by"]),
        ]
        for row in capacities.table.to_dict("records")
    ]
    print_numbers(console, COLUMNS, rows)
    for row in capacities.failed.to_dict("records"):
        text = f"{row['status']}: {row['label']}: {row['error']}"
        console.print(text, style="red", markup=False, highlight=False)
    console.print(f"report: {folder / REPORT}", markup=False, highlight=False)


def _shown(value: Any) -> str:
    number = pd.to_numeric(value, errors="coerce")
    return "-" if pd.isna(number) else style.compact(float(number))
