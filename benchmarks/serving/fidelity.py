"""The same load test against the CPU engine and against the simulator that is calibrated on it.

    OMP_NUM_THREADS=1 python benchmarks/serving/fidelity.py [FILE] [--rounds N] [--quick]

Both stand behind the same server, and the same client sends the same requests at the same times:
`rate` at 0.7 of what the engine can take, `closed` with 8 requests open at a time. Rounds alternate
between the two, so that what the machine does meanwhile falls on both. Errors are simulated /
measured - 1 of the mean over the rounds. Without a calibration in FILE it
makes one first, which takes minutes.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from load_client import bench
from server_process import MODEL, QUIET, ServerProcess, report

from experiments.bench.results import BenchResult
from experiments.provenance import Stopwatch

LIMITS = {"max_num_seqs": 16, "max_num_batched_tokens": 256, "max_model_len": 1024}
BLOCKS = 1024
LENGTHS = ("--random-input-len", 128, "--random-output-len", 48, "--random-range-ratio", 0.5)
SHARE = 0.7
GOAL = 0.05


def calibrate(folder: str, quick: bool) -> Path:
    """Measures the engine's steps; the calibration's file."""
    words = ["backend=engine", "model=hf_config", f"model.path={MODEL}", f"hydra.run.dir={folder}"]
    words += [f"scheduler.{name}={value}" for name, value in LIMITS.items()]
    words += [f"cache.num_gpu_blocks_override={BLOCKS}"]
    words += ["calibrate.rounds=2", "calibrate.serve_s=4"] if quick else []
    command = [sys.executable, "-m", "experiments.calibrate", *words]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Path(folder, "calibration.json")


def flags() -> list[str]:
    """What both servers are given."""
    words = [MODEL, *QUIET, "--num-gpu-blocks-override", str(BLOCKS)]
    for name, value in LIMITS.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return words


def seen(result: BenchResult) -> dict[str, float]:
    """What is compared: means over requests, from sending."""
    if result.num_failed:
        raise RuntimeError(f"requests failed: {result.failure_counts()}")
    columns = result.from_sending
    return {
        "output_tokens_per_s": float(columns.output_tokens.sum()) / result.duration_s,
        "ttft_mean_s": float(np.nanmean(columns.ttft_s)),
        "tpot_mean_s": float(np.nanmean(columns.tpot_s)),
        "itl_mean_s": float(columns.itl_s.mean()),
        "e2e_mean_s": float(np.nanmean(columns.e2e_s)),
    }


def capacity(url: str, requests: int) -> float:
    """Requests a second that the engine serves if there are always enough."""
    words = ("--num-prompts", requests, "--max-concurrency", 32, "--num-warmups", 8)
    result = bench(url, *LENGTHS, *words)
    return len(result.records) / result.duration_s


def loads(rate: float, requests: int) -> dict[str, tuple[Any, ...]]:
    common = (*LENGTHS, "--num-prompts", requests, "--num-warmups", 8)
    return {
        "rate": (*common, "--request-rate", f"{rate:.3f}"),
        "closed": (*common, "--max-concurrency", 8),
    }


def compared(measured: list[dict[str, float]], simulated: list[dict[str, float]]) -> dict[str, Any]:
    """Means of both, their relative error, and how far the engine's rounds lie apart."""
    told = {}
    for name in measured[0]:
        real = np.array([each[name] for each in measured])
        model = np.array([each[name] for each in simulated])
        told[name] = {
            "measured": float(real.mean()),
            "simulated": float(model.mean()),
            "error": float(model.mean() / real.mean() - 1),
            "spread_of_the_engine": float((real.max() - real.min()) / real.mean()),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calibration", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="to see that it works")
    options = parser.parse_args()
    stopwatch = Stopwatch()
    requests, rounds = (40, 1) if options.quick else (200, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = options.calibration or calibrate(folder, options.quick)
        calibrated = ("--backend", "simulator", "cost_model=calibrated", f"cost_model.path={path}")
        with (
            ServerProcess(*flags(), "--backend", "engine", "--device", "cpu") as engine,
            ServerProcess(*flags(), *calibrated) as simulator,
        ):
            most = capacity(engine.url, requests)
            found: dict[str, Any] = {"capacity_requests_per_s": most, "rounds": rounds}
            for load, words in loads(SHARE * most, requests).items():
                sides: dict[str, list[dict[str, float]]] = {"engine": [], "simulator": []}
                for number in range(rounds):
                    seeded = (*words, "--seed", number + 1)
                    sides["engine"].append(seen(bench(engine.url, *seeded)))
                    sides["simulator"].append(seen(bench(simulator.url, *seeded)))
                found[load] = compared(sides["engine"], sides["simulator"])
    worst = max(
        abs(value["error"]) for load in ("rate", "closed") for value in found[load].values()
    )
    report(found | {"largest_error": worst, "goal": GOAL}, stopwatch)


if __name__ == "__main__":
    main()
