"""Numbers that a researcher sets: refused by name where they are none, or absurd.

Knows limits and how an error reads. It does not know what a number means.
"""

from math import inf

from workbench.errors import ConfigError


def check_number(
    name: str, value: object, at_least: float = 0.0, below: float = inf, of: str = ""
) -> None:
    """Refuse a value that is not a finite number in [at_least, below).

    Args:
        name: What the user calls it, e.g. "cost_model.host_overhead_s".
        of: Whose number it is, where the name does not say.

    Raises:
        ConfigError: Naming value and limits.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and at_least <= value < min(below, inf)
    ):
        return
    owner = f" of {of}" if of else ""
    limit = f" and below {below:g}" if below < inf else ""
    raise ConfigError(
        f"{name}={value!r}{owner} must be a finite number of at least {at_least:g}{limit}"
    )


def check_count(
    name: str, value: object, at_least: int = 1, at_most: int = 10**9, of: str = ""
) -> None:
    """Refuse a value that is not a whole number in [at_least, at_most].

    Raises:
        ConfigError: Naming value and limits.
    """
    if isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most:
        return
    owner = f" of {of}" if of else ""
    raise ConfigError(
        f"{name}={value!r}{owner} must be a whole number from {at_least} to {at_most}"
    )
