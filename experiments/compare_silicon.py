"""Simulates measured closed-loop operating points and says how far both are apart.

    python -m experiments.compare_silicon points=CSV hydra.run.dir=OUT

The CSV has a point a line (experiments/measured/points.py says what is read); steps are priced
with the tables of single kernels in profiles_dir=DIR/kernels/<system>. OUT gets errors.json,
points.csv, charts and report.html. More settings: `SiliconSettings` in
experiments/measured/settings.py.

The exit status is 0 if the points could be compared, whatever the errors are, and 2 if the words or
the table do not make a comparison.
"""

import shlex
import sys
from collections.abc import Sequence

from experiments.measured.settings import SiliconSettings, read_settings
from experiments.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_program(arguments, __doc__, _compare)


def _compare(argv: list[str]) -> int:
    settings, folder = read_settings(argv, SiliconSettings)
    from experiments.measured.silicon import compare_points

    command = shlex.join(["python", "-m", "experiments.compare_silicon", *argv])
    print(compare_points(settings, folder, command))
    print(f"Everything is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
