"""CPU time of whole simulations, each beside a calibration of the machine.

    python benchmarks/speed.py NAME REPEATS [overrides] > benchmarks/speed_NAME.json

Every repeat is a process of its own. `calibration_ns` is the CPU time of one iteration of a small
loop (see `experiments/bench_scheduler.py`), the mean of before and after; times are also given as
they would be at 65 ns.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from experiments.bench_scheduler import calibration_ns

REFERENCE_NS = 65.0
KEYS = ("simulation_cpu_s", "startup_cpu_s", "simulation_peak_rss_mb", "steps", "requests")


def one_run(overrides: list[str]) -> dict[str, Any]:
    """One simulation: its own numbers, and the calibration around it."""
    before = calibration_ns()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.run", *overrides]
        settings = ["charts=false", "timeline=false", f"hydra.run.dir={folder}"]
        subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))
    calibration = (before + calibration_ns()) / 2
    run = {"calibration_ns": calibration, "load_average": os.getloadavg()[0]}
    run |= {key: summary[key] for key in KEYS}
    run["simulation_cpu_s_at_65_ns"] = summary["simulation_cpu_s"] * REFERENCE_NS / calibration
    run["startup_cpu_s_at_65_ns"] = summary["startup_cpu_s"] * REFERENCE_NS / calibration
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in run.items()}


def main() -> None:
    name, repeats, *overrides = sys.argv[1:]
    runs = [one_run(overrides) for _ in range(int(repeats))]
    scaled = [run["simulation_cpu_s_at_65_ns"] for run in runs]
    result = {
        "name": name,
        "overrides": overrides,
        "simulation_cpu_s_at_65_ns_median": median(scaled),
        "simulation_cpu_s_at_65_ns_min": min(scaled),
        "runs": runs,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
