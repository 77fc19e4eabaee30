"""`workbench report FOLDER`: one HTML page of a run, a sweep or other results.

Knows which kind of folder gets which page.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from experiments.report.folder_page import is_folder_of_results, write_folder_page
from experiments.report.sources import MULTIRUN
from experiments.run_folder import DONE, FAILED, run_folders
from workbench.errors import ConfigError, WorkbenchError

REPORT = "report.html"
FAILURE = 1
# a file that tells what a folder holds, and the function (folder, out) that writes its page
MAKERS = {
    "capacity.csv": "experiments.capacity.capacity_page:write_capacity_page",
    DONE: "experiments.report.run_page:write_run_page",
    FAILED: "experiments.report.run_page:write_run_page",
    MULTIRUN: "experiments.report.sweep_page:write_sweep_page",
    "comparison.csv": "experiments.report.sweep_page:write_sweep_page",
}
Maker = Callable[[Path, Path], None]


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a folder, by default as `report.html` in it; returns its path.

    Raises WorkbenchError if there is nothing in the folder that a page could show, or if a command
    of its own has written the page of a folder that this one knows nothing special of.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the folder of a run or a sweep")
    target = out or folder / REPORT
    maker = next((made for name, made in MAKERS.items() if (folder / name).exists()), None)
    if maker is not None:
        module, _, function = maker.partition(":")
        make: Maker = getattr(import_module(module), function)
        make(folder, target)
    elif is_folder_of_results(folder) or not run_folders(folder):
        if out is None and target.exists():
            raise ConfigError(
                f"{target} is there already, written by the command that made these results: "
                "name another file with --out"
            )
        write_folder_page(folder, target)
    else:
        from experiments.report.sweep_page import write_sweep_page

        write_sweep_page(folder, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes one page. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="workbench report",
        description="One self-contained HTML page of a run, a sweep or other results.",
    )
    parser.add_argument("folder", type=Path, help="folder of a run, a sweep, a validation …")
    parser.add_argument("--out", type=Path, help="file to write; default: FOLDER/report.html")
    options = parser.parse_args(arguments)
    try:
        print(write_report(options.folder, options.out))
    except (WorkbenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
