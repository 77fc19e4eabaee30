"""Everything that wants a GPU, in one resumable command.

    python -m experiments.gpu_suite --out DIR [--only PART ...] [--dry-run]

The ceilings of the device; every kernel against its float64 reference and against torch's own; the
engine's step time against its byte floor; offline throughput beside transformers; the step-time
table that calibrates the simulator. No part takes more than eight minutes. Results are written as
they come: call it again and it goes on where it stopped. `--dry-run` runs every part at toy size,
on a CPU too. DIR/REPORT.md says what was measured and which goals are met.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.gpu_suite.parts import parts, select
from experiments.gpu_suite.report import write_report
from experiments.gpu_suite.suite import Suite


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description="Everything that wants a GPU, resumable.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts, or prefixes")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes; runs on a CPU")
    args = parser.parse_args(arguments)
    try:
        selected = select(parts(args.out, args.dry_run), args.only)
        suite = Suite(args.out, args.dry_run)
    except ValueError as error:
        parser.error(str(error))
    is_done = suite.run(selected)
    print(write_report(args.out))
    return 0 if is_done else 1


if __name__ == "__main__":
    sys.exit(main())
