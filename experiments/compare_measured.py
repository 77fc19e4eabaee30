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

import sys
from collections.abc import Sequence

from experiments.explain import explain, is_expected
from experiments.measured.settings import MeasuredSettings, read_settings

USAGE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-h", "--help") for word in argv):
        print(__doc__)
        return 0
    try:
        settings, folder = read_settings(argv, MeasuredSettings)
        from experiments.measured.comparison import compare, told, write_comparison

        comparison = compare(settings)
        command = " ".join(["python -m experiments.compare_measured", *argv])
        write_comparison(comparison, settings, folder, command)
        print(told(comparison))
        print(f"Everything is in {folder}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"error: {explain(error, argv)}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
