"""One line for people from whatever went wrong: the value, what was expected, the cure.

Knows the errors of Hydra and OmegaConf and how their messages read. Prints nothing.
"""

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from experiments.schema import DATACLASSES, group_options
from workbench.errors import WorkbenchError

# what names a folder for results on a command line
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "--out")
_EXPECTED = (
    (r"could not be converted to Integer", "a whole number"),
    (r"could not be converted to Float", "a number"),
    (r"is not a valid bool", "true or false"),
    (r"[Cc]annot (be )?convert(ed)? .*str", "text"),
    (r"is not Optional|field .* is not Optional", "a value other than null"),
)


def explain(error: BaseException, overrides: Sequence[str] = (), keys: Iterable[str] = ()) -> str:
    """The line to print. `keys` are the names of all settings, for suggestions.

    A name with a leading `+` is a parameter that the composed config leaves at its default.
    """
    chain = list(_chain(error))
    for link in reversed(chain):  # the outermost of ours knows most about the setting
        if isinstance(link, WorkbenchError):
            return one_line(str(link))
    for link in chain:
        line = _explain_hydra(link, overrides, list(keys))
        if line is not None:
            return line
    for link in chain:
        if isinstance(link, OSError) and (said := _folder_of(link, overrides)):
            return one_line(
                f"{said}: the folder cannot be made ({link.strerror}: {link.filename}); name one in"
                " a place that can be written"
            )
    if isinstance(error, HydraException | OmegaConfBaseException):
        return one_line(" ".join(str(link) for link in reversed(chain) if str(link)))
    return one_line(f"{type(error).__name__}: {error}")


def is_expected(error: BaseException) -> bool:
    """Whether the user can cure this error; anything else is a defect of the program."""
    kinds = (WorkbenchError, HydraException, OmegaConfBaseException, OSError, YAMLError)
    return any(isinstance(link, kinds) or _is_no_option(link) for link in _chain(error))


def _is_no_option(error: BaseException) -> bool:
    """Whether Hydra was given a number or the like where a group needs the name of an option."""
    return isinstance(error, ValueError) and str(error).startswith("Config group override must be")


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Causes first: the deepest error says best what is wrong."""
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__
    return reversed(links)


def _explain_hydra(error: BaseException, overrides: Sequence[str], keys: list[str]) -> str | None:
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(text)
    if _is_no_option(error):
        return _no_option(overrides)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read as GROUP=OPTION or KEY=VALUE; "
            "quote values that hold spaces, commas or brackets: 'KEY=\"VALUE\"'"
        )
    if isinstance(error, MissingMandatoryValue):
        key = text.rpartition(": ")[2].split()[0]
        return f"{key} is not set: give it on the command line, {key}=VALUE"
    if isinstance(error, InterpolationResolutionError):
        return one_line(text.partition("\n")[0])
    if isinstance(error, ValidationError):
        return _wrong_type(text, overrides)
    if text.startswith("Ambiguous value for argument") or "requires --multirun" in text:
        found = re.search(r"'(.+?)'", text)
        name = found[1] if found else "a setting"
        return f"{name}: several values make a sweep: add -m (or quote the value if it is one)"
    if match := re.match(
        r"Could not (?:override|append to config|delete from config)[^']*'(.+?)'", text
    ):
        if text.startswith("Could not override"):
            return unknown_key(match[1], overrides, keys)
        return one_line(text.partition("\n")[0])
    if match := re.match(r"Key '(.+?)' (?:is )?not in", text):
        full = re.search(r"full_key: (\S+)", text)
        return unknown_key(full[1] if full else match[1], overrides, keys)
    return None


def _folder_of(error: OSError, words: Sequence[str]) -> str | None:
    """The words that name a folder for results, if the error is about making it."""
    if not isinstance(error.filename, str):
        return None
    place = Path(error.filename).absolute()
    pairs = [tuple(word.partition("=")[::2]) for word in words]
    for name, value in (*pairs, *itertools.pairwise(words)):
        folder = Path(value).absolute()
        is_inside = place.is_relative_to(folder) and not folder.is_dir()
        if name in FOLDERS and (is_inside or folder.is_relative_to(place)):
            return f"{name} {value}" if name.startswith("-") else f"{name}={value}"
    return None


def _missing_option(text: str) -> str:
    found = re.search(r"Could not find '(.+)/([^'/]+)'", text)
    if found is None:
        return one_line(text)
    group, option = found[1], found[2]
    first, _, rest = group.partition("/")
    if first in group_options():  # an option with slashes in it: model=meta-llama/Llama-3.1-8B
        group, option = first, "/".join(filter(None, (rest, option)))
    options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or list(group_options().get(group, {}))
    return _no_such(group, option, options)


def _no_such(group: str, option: str, options: Iterable[str]) -> str:
    options = [name for name in options if name != "schema"]
    cure = ""
    if group == "hydra/launcher" and option == "ray":
        cure = "; pip install -e '.[ray]' adds it"
    if group == "model":
        cure = "; any other: model=hf_config model.path=PATH/config.json"
    listed = ", ".join(options) or "none"
    hint = _close(option, options)
    return f"{group}={option}: there is no such {group}; {hint}it is one of: {listed}{cure}"


def _no_option(overrides: Sequence[str]) -> str:
    groups = group_options()
    for override in overrides:
        group, _, value = override.lstrip("+~").partition("=")
        if group in groups and value not in groups[group]:
            return _no_such(group, value, groups[group])
    return "a group needs the name of one of its options: workbench list shows them"


def _wrong_type(text: str, overrides: Sequence[str]) -> str:
    full = re.search(r"full_key: (\S+)", text)
    value = re.search(r"Value '(.*?)'", text)
    key = full[1] if full else ""
    said = next((o for o in overrides if o.lstrip("+").partition("=")[0] == key), None)
    head = said or (f"{key}={value[1]}" if value else key)
    for pattern, words in _EXPECTED:
        if re.search(pattern, text):
            return f"{head}: expected {words}" + (f", got {value[1]!r}" if value else "")
    return f"{head}: {one_line(text.partition(chr(10))[0])}"


def unknown_key(key: str, overrides: Sequence[str], keys: Sequence[str]) -> str:
    """What to say about a setting that does not exist."""
    key = key.partition("@")[0]
    if f"+{key}" in keys:
        said = next((o for o in overrides if o.partition("=")[0] == key), f"{key}=VALUE")
        return f"{said}: the chosen option leaves this parameter at its default; write +{said}"
    names = list(dict.fromkeys(k.lstrip("+") for k in keys))
    said = next((o for o in overrides if _is_of(o, key)), key)
    return f"{said}: there is no setting {key!r}; {_nearest(key, names)}".rstrip("; ").rstrip()


def _is_of(override: str, key: str) -> bool:
    """Whether an override names the key, or something below it."""
    name = override.lstrip("+~").partition("=")[0]
    return name == key or name.startswith(f"{key}.")


def _nearest(key: str, names: Sequence[str]) -> str:
    """The setting that was probably meant: one beside it, else one of the same last name.

    Only the last names are compared. Whole ones look alike as soon as they share a long group.
    """
    parent, _, last = key.rpartition(".")
    siblings = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == parent}
    beside = [siblings[n] for n in difflib.get_close_matches(last, siblings, n=1)]
    same = sorted((n for n in names if n.rpartition(".")[2] == last), key=_distance(parent))
    for found in [*beside, *same] if parent else [*same, *beside]:
        return f"did you mean {found}? "
    if parent and siblings:
        return f"{parent} has: {', '.join(siblings)}"
    return ""


def _distance(parent: str) -> Callable[[str], tuple[bool, bool, int]]:
    """Sorting key: settings of the same group first, then plain ones, then those less deep."""
    group = parent.partition(".")[0]

    def distance(name: str) -> tuple[bool, bool, int]:
        its_group = name.partition(".")[0]
        return its_group != group, its_group not in DATACLASSES, name.count(".")

    return distance


def _close(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {found[0]}? " if found else ""
