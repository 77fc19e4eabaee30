"""Runs experiments: `python -m experiments.run [overrides]`, `-m` for sweeps.

Knows how the command line becomes a composed config and how errors of that are told. One job is
`job.task`; what the settings mean is known by `conf/` and the classes it names.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.explain import explain, is_expected
from experiments.instantiate import parameter_names
from experiments.job import task
from experiments.schema import CONF_DIR, GROUPS, group_options, register_schemas
from experiments.sweep import register_resolvers
from workbench.errors import ConfigError

FULL_ERROR = "HYDRA_FULL_ERROR"
USAGE = 2
INTERRUPTED = 130
MAY_BE_EMPTY = ("experiment", "variant", "uncertainty")
HYDRA_SETTINGS = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.launcher.n_jobs",
    "hydra/launcher",
)


def main(
    arguments: Sequence[str] | None = None,
    *,
    config_name: str = "config",
    function: Callable[[DictConfig], None] = task,
    program: str = __file__,
) -> int:
    """Runs with these command-line arguments (default: the program's own). Returns the exit status.

    0: done. 1: a run failed, its folder says why. 2: the arguments do not make a config.
    `function` is what is done with each composed config, `config_name` its file in `conf/`, and
    `program` the file of the module that these arguments are for.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    prepare()
    full_error = os.environ.get(FULL_ERROR) == "1"
    try:
        _refuse_empty_groups(argv)
        with _as_program_arguments(program, argv), _errors_raised():
            entry = hydra.main(
                version_base="1.3", config_path=str(CONF_DIR), config_name=config_name
            )
            entry(function)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print("interrupted: the run was not finished and is not marked as done", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if full_error or not is_expected(error):
            raise
        overrides = [a for a in argv if not a.startswith("-")]
        names = setting_names(overrides, config_name)
        print(f"error: {explain(error, overrides, names)}", file=sys.stderr)
        return USAGE
    return 0


def _refuse_empty_groups(argv: Sequence[str]) -> None:
    options = group_options()
    for argument in argv:
        group, _, value = argument.partition("=")
        if value == "null" and group in options and group not in MAY_BE_EMPTY:
            names = ", ".join(options[group])
            raise ConfigError(f"{group}=null: a run needs one of the group; choose {names}")


def prepare() -> None:
    """Registers with Hydra what `conf/` refers to."""
    register_schemas()
    register_resolvers()


def compose_config(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The composed config of one run, without running it. Raises Hydra's errors."""
    prepare()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose(config_name, overrides=list(overrides))


def setting_names(overrides: Sequence[str] = (), config_name: str = "config") -> list[str]:
    """Full names of all groups and settings, for suggestions; groups are composed as chosen.

    A parameter that a class has and the config does not name comes with a leading `+`.
    """
    groups = group_options()
    choices = [o for o in overrides if o.partition("=")[0] in groups]
    try:
        config = compose_config(choices, config_name)
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError):  # a null group, a file
        try:
            config = compose_config((), config_name)
        except (HydraException, OmegaConfBaseException, YAMLError):
            return [*groups, *HYDRA_SETTINGS]  # what is broken lies in a file
    return [*_names(config, ""), *groups, *HYDRA_SETTINGS]


def _names(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        if not key.startswith("_"):
            yield prefix + key
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _names(value, f"{prefix}{key}.")
    if "_target_" in node:
        # some groups get others as arguments: those are no settings of theirs
        missing = parameter_names(str(node._target_)) - set(map(str, node)) - GROUPS
        yield from (f"+{prefix}{name}" for name in sorted(missing))


@contextmanager
def _as_program_arguments(program: str, argv: list[str]) -> Iterator[None]:
    """Where Hydra reads them, and results keep them: as `python -m` would have called the module.

    The program that was called may be another, with a word before the arguments that is not for
    Hydra: `workbench run`.
    """
    saved = sys.argv
    sys.argv = [program, *argv]
    try:
        yield
    finally:
        sys.argv = saved


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Lets Hydra's errors through to `main` instead of being printed over several lines."""
    saved = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if saved is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = saved


if __name__ == "__main__":
    sys.exit(main())
