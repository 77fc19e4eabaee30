"""How much longer decodes take right after a step with prompts.

    python benchmarks/validation/cold_steps.py NAME=STEPS.csv …

STEPS.csv are recorded steps in the order of time: `steps.csv` beside this file, or the
`calibration_steps.csv` of experiments.validate_vllm. A calibration that knows nothing of what came
before is fitted to them, and steps that only decode are compared with it, at the machine's typical
pace, by how many steps ago the last prompt was computed.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.calibration import Calibration, fit
from simulator.calibration.fit import is_alone
from workbench.step_profile import MeasuredStep, read_steps

ROWS = ((1, 1), (2, 4), (5, 8), (9, 16))
AGO = {1: "right after", 2: "one later", 3: "two later", 4: "later"}


def with_age(steps: list[MeasuredStep]) -> Iterator[tuple[int, MeasuredStep]]:
    """Recorded steps that only decode, and how many steps ago there was a prompt, 4 at most."""
    age, source = 0, ""
    for step in steps:
        if step.source != source:
            age, source = max(AGO), step.source
        age = 0 if step.shape.prefills else min(age + 1, max(AGO))
        if step.shape.follows_prefills and not step.shape.prefills:
            age = 1
        if age and not is_alone(step):
            yield age, step


def excess(calibration: Calibration, steps: list[MeasuredStep]) -> str:
    """Measured over predicted time of all of them together - 1, and the difference a step."""
    measured = np.array([calibration.pace.at_typical(step).seconds for step in steps])
    predicted = np.array([calibration.mean_s(step.shape) for step in steps])
    share = measured.sum() / predicted.sum() - 1
    return f"{share:+7.1%} {1e6 * (measured - predicted).mean():+6.0f} us ({len(steps):5d})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="+", help="NAME=STEPS.csv")
    for given in parser.parse_args().steps:
        name, _, file = given.partition("=")
        steps = read_steps(Path(file))
        blind = fit([replace(s, shape=replace(s.shape, follows_prefills=False)) for s in steps])
        groups: dict[tuple[int, int], list[MeasuredStep]] = defaultdict(list)
        for age, step in with_age(steps):
            rows = step.shape.num_decodes
            place = next((i for i, (low, high) in enumerate(ROWS) if low <= rows <= high), -1)
            groups[place, age].append(step)
        price = fit(steps).device.seconds.get("cold", 0.0)
        print(f"{name}: the price that a fit gives it is {1e6 * price:.0f} us")
        for place, (low, high) in enumerate(ROWS):
            told = [
                f"{AGO[age]} {excess(blind, groups[place, age])}"
                for age in AGO
                if groups[place, age]
            ]
            print(f"  {low:2d} to {high:2d} rows: " + "; ".join(told))


if __name__ == "__main__":
    main()
