"""Messages about settings, with the flags of `workbench serve` in their place.

Knows which flag stands for which setting. It knows no setting's meaning.
"""

import re
from functools import cache

from experiments.serving.flags import make_parser

SERVER, BACKEND = "server.", "backend."


@cache
def _flags() -> dict[str, str]:
    """The first flag of every destination."""
    actions = make_parser()._actions
    return {a.dest: a.option_strings[0] for a in reversed(actions) if a.option_strings}


def in_flags(text: str) -> str:
    """A message about fields of the server's settings, with the flags in their place."""
    flags = {name.removeprefix(SERVER): flag for name, flag in _flags().items()}
    return re.sub(r"^\w+|[a-z]+(_[a-z]+)+", lambda m: flags.get(m[0], m[0]), text)


def backend_in_flags(text: str) -> str:
    """A message of the engine, with flags where it names settings: backend.NAME=… or NAME='…'."""
    flags = {name: flag for name, flag in _flags().items() if name.startswith(BACKEND)}

    def flag(found: re.Match[str]) -> str:
        named = flags.get(BACKEND + found[1])
        return found[0] if named is None else f"{named} {found[2]}"

    return re.sub(r"\b(?:backend\.)?([a-z_]+)='?([\w.:-]*\w)'?", flag, text)
