"""`python -m experiments.capacity slo.ttft_p99=… slo.tpot_p99=… [overrides]`.

Knows how its command line becomes that of a Hydra sweep: objectives and prices get their places in
the config, several values of anything are combined (`-m` is taken for granted), and the folder may
be named as that of a run.
"""

import math
import sys
from collections.abc import Sequence

from experiments.capacity.job import task
from experiments.capacity.objectives import Objectives, is_objective
from experiments.run import USAGE
from experiments.run import main as run_main
from workbench.errors import ConfigError

SHOWS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i")
MULTIRUN = ("-m", "--multirun")
PRICES = "hydra.callbacks.sweep.prices"
SOURCE = "hydra.callbacks.sweep.price_source"


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches. Returns the exit status: 0 done, 1 a configuration failed, 2 wrong usage."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        translated = translate(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    return run_main(translated, config_name="capacity", function=task, program=__file__)


def translate(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them. Raises ConfigError for an objective that cannot be."""
    shows = any(argument.partition("=")[0] in SHOWS for argument in arguments)
    given = [a for a in arguments if a not in MULTIRUN]
    out = [_translated(argument) for argument in given]
    if _value_of(given, "workload.num_requests") and not any(
        "requests_per_replica" in a for a in given
    ):
        out.append("capacity.requests_per_replica=null")  # what was asked for goes before a default
    if any(a.startswith(PRICES) for a in (o.lstrip("+") for o in out)):
        out.append(f'++{SOURCE}="Some or all prices were given on the command line"')
    if shows:
        return out
    if not any(a.lstrip("+").startswith("capacity.slo.") for a in out):
        Objectives({})  # says what to give
    return ["-m", *out]


def _translated(argument: str) -> str:
    key, sign, value = argument.partition("=")
    group, _, name = key.lstrip("+").partition(".")
    if group == "slo" and sign and (is_objective(name) or _looks_like_one(name)):
        for part in value.split(","):
            Objectives({name: _number(f"slo.{name}", part)})
        return f"++capacity.slo.{name}={value}"
    if group == "price" and sign:
        if not _number(key, value) >= 0:
            raise ConfigError(f"{argument}: a price is US dollars for a GPU and hour, 0 or more")
        return f"++{PRICES}.{name}={value}"
    if key == "hydra.run.dir":
        return f"hydra.sweep.dir={value}"
    return argument


def _looks_like_one(name: str) -> bool:
    """Whether somebody meant an objective: the limits of single requests end in `_s`."""
    return "_" in name and not name.endswith("_s")


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: expected a number") from None
    if not math.isfinite(value):
        raise ConfigError(f"{name}={text}: expected a finite number")
    return value


def _value_of(arguments: Sequence[str], key: str) -> str:
    return next((a.partition("=")[2] for a in arguments if a.partition("=")[0] == key), "")


if __name__ == "__main__":
    sys.exit(main())
