"""Replays a measured run of a real server in the simulator and says how far they are apart.

    python -m experiments.compare_measured measured=DIR requests=FILE profile=DIR hydra.run.dir=OUT

DIR of the run holds meta.json, requests.jsonl, config.json and, where there is one, timeseries.csv;
FILE is the workload that was sent; the profile is a layer-wise one of the model on the GPU, or
profile=none for kernel tables (profiles_dir=DIR/kernels/<system>) or, without them, formulas. OUT
gets errors.json, requests.csv, charts and report.html. More settings: `MeasuredSettings` in
experiments/measured/settings.py.

The exit status is 0 if both could be compared, whatever the errors are, and 2 if the words do not
make a comparison.
"""

import shlex
import sys
from collections.abc import Sequence

from experiments.measured.settings import MeasuredSettings, read_settings
from experiments.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_program(arguments, __doc__, _compare)


def _compare(argv: list[str]) -> int:
    settings, folder = read_settings(argv, MeasuredSettings)
    from experiments.measured.comparison import compare, told, write_comparison

    comparison = compare(settings)
    command = shlex.join(["python", "-m", "experiments.compare_measured", *argv])
    write_comparison(comparison, settings, folder, command)
    print(told(comparison))
    print(f"Everything is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
