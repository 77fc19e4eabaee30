"""How words of a command line become values, for the flags of a server."""

import argparse
import re
from typing import Any

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def whole_number(text: str) -> int:
    """A whole number; 8k is 8,000 and 8K is 8,192, as in vLLM.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kmgKMG]?)", text.strip())
    value = float(match[1]) * _SIZES[match[2]] if match else 0.5
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number (8k is 8000, 8K is 8192)")
    return int(value)


def names(text: str) -> tuple[str, ...]:
    """Names parted by commas; also a JSON list, as vLLM takes it."""
    return tuple(name.strip(" \"'") for name in text.strip("[] ").split(",") if name.strip(" \"'"))


def add_switch(group: Any, name: str, dest: str, text: str) -> None:
    """--name and --no-name."""
    group.add_argument(
        f"--{name}", dest=dest, action=argparse.BooleanOptionalAction, default=None, help=text
    )
