"""Serves a model to real clients: `workbench serve MODEL`, the engine or the simulator behind it.

Knows how the command begins and how it ends; `experiments.serving` knows the rest.
"""

import os
import sys
from collections.abc import Sequence

from experiments.program import run_program
from workbench.errors import WorkbenchError

ON_INTERRUPT = "interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 0 ended as told, 2 it could not start as asked."""
    from experiments.serving.flags import make_parser

    return run_program(
        arguments,
        make_parser().format_help(),
        _serve,
        on_interrupt=ON_INTERRUPT,
        setting_names=_setting_names,
    )


def _serve(argv: list[str]) -> int:
    try:
        from experiments.serving.core_spec import PlannedCore
        from experiments.serving.options import read_options
        from experiments.serving.server import run

        return run(PlannedCore.of(read_options(argv, os.environ)))
    except ModuleNotFoundError as error:
        raise missing_package(error) from error


def missing_package(error: ModuleNotFoundError) -> WorkbenchError:
    """What to say about a package that is not installed."""
    if error.name is None or error.name.partition(".")[0] in OURS:
        raise error
    return WorkbenchError(f"serving needs {error.name}: pip install -e '.[serve]'")


OURS = ("engine", "experiments", "simulator", "workbench")


def _setting_names() -> list[str]:
    from experiments.run import setting_names

    return setting_names()


if __name__ == "__main__":
    sys.exit(main())
