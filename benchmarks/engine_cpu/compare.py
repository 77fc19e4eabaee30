"""Output tokens per second on a CPU: our engine beside its peers, interleaved in one run.

    python benchmarks/engine_cpu/compare.py --dtype bfloat16 --rounds 3 --out FILE.json \
        --peer vllm=PYTHON --peer transformers=PYTHON --peer transformers_batch=PYTHON

Every contestant runs in a process of its own with the Python given for it (each peer in an
environment of its own), on the same random checkpoint and the same requests: 48 prompts of
U(32, 256) tokens, answers of exactly U(32, 128) tokens, greedy. It loads, answers four requests as
a warm-up, and then answers all 48: only that is timed, by wall clock and by the CPU time of the
process with its children. Rounds are interleaved, so that a busy machine is busy for all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 8192
NUM_REQUESTS = 48
OURS = "workbench"


def requests(seed: int) -> list[dict[str, Any]]:
    """Prompts as token ids, with the length of the answer."""
    random = np.random.default_rng(seed)
    return [
        {
            "prompt_token_ids": random.integers(3, VOCAB_SIZE, random.integers(32, 257)).tolist(),
            "max_tokens": int(random.integers(32, 129)),
        }
        for _ in range(NUM_REQUESTS)
    ]


def run_contestant(name: str, python: str, folder: Path, dtype: str) -> dict[str, Any]:
    """One timed run in a process of its own; the last line of its output is its result."""
    script = HERE / f"run_{name}.py"
    if not script.exists():
        known = ", ".join(sorted(p.stem.removeprefix("run_") for p in HERE.glob("run_*.py")))
        raise SystemExit(f"--peer {name}: no such contestant; choose among {known}")
    command = [python, str(script), str(folder / "model"), str(folder / "requests.json"), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds."""
    return {
        "output_tokens_per_s": round(median(run["output_tokens_per_s"] for run in runs), 1),
        "output_tokens_per_cpu_s": round(median(run["output_tokens_per_cpu_s"] for run in runs), 1),
        "rounds": [round(run["output_tokens_per_s"], 1) for run in runs],
        "version": runs[0]["version"],
    }


def ratio(runs: dict[str, list[dict[str, Any]]], name: str, what: str) -> float:
    """Ours over theirs, the median of the rounds."""
    pairs = zip(runs[OURS], runs[name], strict=True)
    return round(median(ours[what] / theirs[what] for ours, theirs in pairs), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    contestants = {OURS: sys.executable} | dict(peer.split("=", 1) for peer in args.peer)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "requests.json").write_text(json.dumps(requests(args.seed)))
        make = [sys.executable, str(HERE / "make_model.py"), str(folder / "model"), args.dtype]
        subprocess.run(make, check=True)
        loads = []
        for round_number in range(args.rounds):
            loads.append(round(os.getloadavg()[0], 1))
            for name, python in contestants.items():
                runs[name].append(run_contestant(name, python, folder, args.dtype))
                rate = runs[name][-1]["output_tokens_per_s"]
                print(f"round {round_number}: {name:20} {rate:8.1f} output tokens/s", flush=True)
    report = {name: summary(results) for name, results in runs.items()}
    for name, result in report.items():
        result["workbench_over_this"] = ratio(runs, name, "output_tokens_per_s")
        result["workbench_over_this_per_cpu_s"] = ratio(runs, name, "output_tokens_per_cpu_s")
    settings = {"dtype": args.dtype, "rounds": args.rounds, "load_averages": loads}
    text = json.dumps(settings | report, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
