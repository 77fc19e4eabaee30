"""The parser of flags: what is wrong is told in one line, with the flag that was meant.

Knows how argparse words its errors. It knows no command and no flag.
"""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

from workbench.errors import ConfigError

UNKNOWN = "unrecognized arguments: "


class FlagParser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and end the program."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        if message.startswith(UNKNOWN):
            words = message.removeprefix(UNKNOWN).split()
            flag = next((word for word in words if word.startswith("-")), words[0])
            raise ConfigError(unknown_flag(flag, self._option_string_actions, self.prog))
        text = message.removeprefix("argument ")
        raise ConfigError(f"{text}; {self.prog} --help says more")


def unknown_flag(flag: str, known: Iterable[str], program: str) -> str:
    """What to say about a flag that a program does not have.

    Args:
        flag: As it was written, perhaps with its value.
        known: The program's flags, with their dashes.
        program: As it is called.
    """
    flag = flag.partition("=")[0]
    near = difflib.get_close_matches(flag.replace("_", "-"), sorted(known), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{flag}: there is no such flag; {hint}{program} --help lists them"
