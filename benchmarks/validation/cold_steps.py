"""How much longer decodes take right after a step with prompts.

    python benchmarks/validation/cold_steps.py NAME=STEPS.csv …

STEPS.csv are recorded steps in the order of time: `steps.csv` beside this file, or the
`calibration_steps.csv` of experiments.validate_vllm. A calibration that knows nothing of what came
before is fitted to them, and steps that only decode are compared with it, at the machine's typical
pace: by how many steps ago the last prompt was computed, and by how long the prompts were.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.calibration import Calibration, fit
from simulator.calibration.fit import is_alone
from workbench.step_profile import MeasuredStep, read_steps

ROWS = {"1 row": 1, "2 to 4 rows": 4, "5 to 8 rows": 8, "9 rows and more": 1 << 30}
PROMPTS = {"to 16": 16, "to 64": 64, "to 128": 128, "to 256": 256, "more": 1 << 30}
AGES = {"right after": 1, "one later": 2, "two later": 3, "later": 4}
LATER = max(AGES.values())

Group = Callable[[MeasuredStep, int], str]


def with_age(steps: Sequence[MeasuredStep]) -> Iterator[tuple[MeasuredStep, int]]:
    """Recorded steps that only decode, and how many steps ago there was a prompt."""
    age, source = LATER, ""
    for step in steps:
        if step.source != source:
            age, source = LATER, step.source
        age = 0 if step.shape.prefills else min(age + 1, LATER)
        if step.shape.prefill_tokens_before and not step.shape.prefills:
            age = 1
        if age and not is_alone(step):
            yield step, age


def label(value: int, ends: Mapping[str, int]) -> str:
    """The first class that the value is in."""
    return next(name for name, end in ends.items() if value <= end)


def excess(calibration: Calibration, steps: Sequence[MeasuredStep]) -> str:
    """Measured over predicted time of all of them together - 1, and the difference a step."""
    if not steps:
        return ""
    measured = np.array([calibration.pace.at_typical(step).seconds for step in steps])
    predicted = np.array([calibration.mean_s(step.shape) for step in steps])
    share = measured.sum() / predicted.sum() - 1
    return f"{share:+.1%} {1e6 * (measured - predicted).mean():+.0f} us ({len(steps)})"


def table(
    calibration: Calibration, found: Sequence[tuple[MeasuredStep, int]], columns: Group
) -> dict[tuple[str, str], str]:
    """What steps of each number of rows take more, by columns."""
    groups: dict[tuple[str, str], list[MeasuredStep]] = defaultdict(list)
    for step, age in found:
        groups[label(step.shape.num_decodes, ROWS), columns(step, age)].append(step)
    return {place: excess(calibration, steps) for place, steps in groups.items()}


def show(cells: Mapping[tuple[str, str], str], columns: Sequence[str]) -> None:
    """A line for each number of rows."""
    print(" " * 18 + "".join(name.ljust(26) for name in columns))
    for rows in ROWS:
        print("  " + rows.ljust(16) + "".join(cells.get((rows, c), "").ljust(26) for c in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="+", help="NAME=STEPS.csv")
    for given in parser.parse_args().steps:
        name, _, file = given.partition("=")
        steps = read_steps(Path(file))
        known = fit(steps).device.curves.get("cold")
        warm = [replace(s, shape=replace(s.shape, prefill_tokens_before=0)) for s in steps]
        found = list(with_age(steps))
        blind = fit(warm)
        print(f"{name}: by steps since the last prompt")
        by_age = table(blind, found, lambda step, age: label(age, AGES))
        show(by_age, list(AGES))
        print(f"{name}: right after, by prompt tokens")
        after = [(step, age) for step, age in found if age == 1]
        by_tokens = table(
            blind, after, lambda step, age: label(step.shape.prefill_tokens_before, PROMPTS)
        )
        show(by_tokens, list(PROMPTS))
        if known is not None:
            prices = ", ".join(f"{n}: {1e6 * known(n):.0f} us" for n in (16, 64, 128, 256, 1024))
            print(f"{name}: prices by prompt tokens, fitted: {prices}\n")


if __name__ == "__main__":
    main()
