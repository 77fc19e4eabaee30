"""What prompts that share their beginning do to the price of decodes, in a live validation.

    python benchmarks/validate_vllm/shared_keys.py OUT

OUT is the folder of `experiments.validate_vllm` with its default workload, whose prompts begin with
one of four texts of a KV block each. Of the steps that only decode, those of the loads are compared
with the calibration twice: as if every row's keys were its own, and with the shared ones told; both
at the pace that fixed work in the server's worker told, where it did.
"""

import argparse
import json
import re
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from experiments.assemble import part
from experiments.live_vllm.step_record import pace_files
from experiments.pace_log import PaceLog
from experiments.run import compose_config
from simulator.calibration import Calibration
from workbench.step_profile import MeasuredStep, StepShape

SHARED = 128  # tokens of each text, and of a block of vLLM on a CPU
PARTS = 3
LONGEST_S = 0.05  # a longer pause between two steps has waiting in it
FEWEST = 8
REQUEST = re.compile(r"(?:low|medium|overload)\.(\d+)(?:\.again\d+)?-(\d+)-")


def texts_of_requests() -> list[int]:
    """The text that each request of the workload begins with."""
    workload = part(compose_config(["workload=live_vllm"]), "workload")
    return [item.hash_ids[0] for item in workload.initial()]


def decode_steps(record: Path, texts: list[int]) -> dict[int, list[MeasuredStep]]:
    """The loads' steps that only decode, until the next step begins, by rows."""
    paces = PaceLog(pace_files(record))
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    found = defaultdict(list)
    for step, following in pairwise(line for line in lines if line[0] == "schedule"):
        rows, seconds = step[3], following[1] - step[1]
        names = [REQUEST.search(row[0]) for row in rows]
        if not all(names) or any(row[2] != 1 for row in rows) or seconds >= LONGEST_S:
            continue
        places = [(int(n[1]) - 1) * len(texts) // PARTS + int(n[2]) for n in names if n]
        shared = SHARED * (len(rows) - len({texts[place] for place in places}))
        keys = [row[1] + 1 for row in rows]
        shape = StepShape(len(rows), sum(keys), [], len(rows), 0, max(keys), shared)
        pace = paces.near(step[1] + seconds / 2)
        found[len(rows)].append(MeasuredStep(shape, seconds, pace=pace))
    return found


def error(calibration: Calibration, steps: list[MeasuredStep], is_told: bool) -> float:
    """Predicted over measured, less 1, median."""
    ratios = []
    for step in steps:
        shape = step.shape if is_told else replace(step.shape, shared_context=0)
        slowdown = calibration.pace.slowdown(step.pace, has_prompts=False)
        ratios.append(calibration.typical_s(shape) * slowdown / step.seconds)
    return float(np.median(ratios)) - 1


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    calibration = Calibration.load(folder / "calibration.json")
    steps_of = decode_steps(folder / "server_steps.jsonl", texts_of_requests())
    print("rows  steps  keys shared  predicted, all own  predicted, shared told")
    for rows, steps in sorted(steps_of.items()):
        if len(steps) >= FEWEST:
            shapes = [step.shape for step in steps]
            share = np.mean([shape.shared_context / shape.decode_context for shape in shapes])
            own, told = (100 * error(calibration, steps, is_told) for is_told in (False, True))
            print(f"{rows:4d} {len(steps):6d} {share:12.0%} {own:+17.1f} % {told:+21.1f} %")


if __name__ == "__main__":
    main()
