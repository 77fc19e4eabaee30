"""What prompts that share their beginning do to the price of decodes, in a live validation.

    python benchmarks/validate_vllm/shared_keys.py OUT

OUT is the folder of `experiments.validate_vllm`. Of the steps that only decode, those of the loads
are compared with the calibration twice: as if every row's keys were its own, and with those of the
first tokens, which the loads' requests share, told as shared.
"""

import argparse
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from simulator.calibration import Calibration
from workbench.step_profile import StepShape

SHARED = 128  # tokens that all prompts of `workload=live_vllm` begin with
LOADS = ("low", "medium", "overload")
LONGEST_S = 0.05  # a longer pause between two steps has waiting in it
FEWEST = 8


def decode_steps(record: Path) -> dict[int, list[tuple[int, int, float]]]:
    """(keys, longest, seconds to the next step) of the loads' steps that only decode, by rows."""
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    found = defaultdict(list)
    for step, following in pairwise(line for line in lines if line[0] == "schedule"):
        rows, seconds = step[3], following[1] - step[1]
        is_load = any(load in rows[0][0] for load in LOADS)
        if is_load and all(row[2] == 1 for row in rows) and seconds < LONGEST_S:
            contexts = [row[1] + 1 for row in rows]
            found[len(rows)].append((sum(contexts), max(contexts), seconds))
    return found


def error(
    calibration: Calibration, rows: int, steps: list[tuple[int, int, float]], shared: int
) -> float:
    """Predicted over measured, less 1, median; each row but one shares so many keys."""
    ratios = []
    for keys, longest, seconds in steps:
        common = shared * (rows - 1)
        shape = StepShape(rows, keys, [], rows, longest_decode=longest, shared_context=common)
        ratios.append(calibration.typical_s(shape) / seconds)
    return float(np.median(ratios)) - 1


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    calibration = Calibration.load(folder / "calibration.json")
    print("rows  steps  all keys own  first keys shared")
    for rows, steps in sorted(decode_steps(folder / "server_steps.jsonl").items()):
        if len(steps) >= FEWEST:
            both = [100 * error(calibration, rows, steps, shared) for shared in (0, SHARED)]
            print(f"{rows:4d} {len(steps):6d} {both[0]:+15.1f} % {both[1]:+15.1f} %")


if __name__ == "__main__":
    main()
