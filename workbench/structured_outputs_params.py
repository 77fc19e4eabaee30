"""What form an answer must have: a JSON schema, a regular expression, a choice or a grammar.

Names follow vLLM's StructuredOutputsParams. This file checks that exactly one form is asked for and
that it is of the right type; whether it compiles, a grammar library must say.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError

FORMS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
MAX_FORM_CHARACTERS = 256 * 1024
"""Longest schema, expression or grammar, as text; a list of choices counts their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """The form of one answer: exactly one of the first six is set.

    Attributes:
        json: JSON schema, as a dict or as JSON text; kept as text, with its keys in their order.
        regex: Regular expression that the whole answer matches (no look-around).
        choice: Texts, one of which the answer is; kept as a tuple.
        grammar: Grammar in Lark's notation, or in EBNF as llama.cpp writes it (`root ::= …`).
        json_object: True: any JSON object.
        structural_tag: As in vLLM: JSON text or a dict with "structures" (each of "begin",
            "schema", "end") and "triggers"; what is between a trigger and its end is JSON, the
            rest is free text. Kept as text.
        disable_any_whitespace: Leave no room for whitespace between the tokens of JSON. Unlike
            vLLM's, ours is on: a model that is not sure may write whitespace until it runs out of
            tokens.
        whitespace_pattern: Regular expression of the whitespace between the tokens of JSON, where
            it is to be some; takes precedence over `disable_any_whitespace`.
        wrap_up: Close a JSON answer (`json`, `json_object`) in time when max_tokens comes near.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, Any] | None = None
    disable_any_whitespace: bool = True
    whitespace_pattern: str | None = None
    wrap_up: bool = True

    def __post_init__(self) -> None:
        if self.json_object is False:
            # vLLM's clients send it for "not asked for"
            object.__setattr__(self, "json_object", None)
        given = [name for name in FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are set" if given else "none is set"
            raise ConfigError(
                f"structured_outputs needs exactly one of {', '.join(FORMS)}, and {what}"
            )
        self._check_switches()
        form = given[0]
        if form in ("json", "structural_tag"):
            object.__setattr__(self, form, _object_text(form, getattr(self, form)))
        elif form == "choice":
            object.__setattr__(self, form, _choices(self.choice))
        elif form != "json_object":
            _check_text(form, getattr(self, form))
        _check_size(form, getattr(self, form))

    @property
    def form(self) -> str:
        """Which of the forms is set, by its name."""
        return next(name for name in FORMS if getattr(self, name) is not None)

    @property
    def is_json(self) -> bool:
        """Whether the whole answer is JSON."""
        return self.json is not None or self.json_object is not None

    def _check_switches(self) -> None:
        for name in ("json_object", "disable_any_whitespace", "wrap_up"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "json_object" and value is None):
                raise ConfigError(f"structured_outputs.{name}={value!r} must be True or False")
        if self.whitespace_pattern is not None:
            _check_text("whitespace_pattern", self.whitespace_pattern)
            _check_size("whitespace_pattern", self.whitespace_pattern)


def structured_outputs(value: Any) -> StructuredOutputsParams | None:
    """The parameters from themselves, from their fields in a mapping, or from None.

    Raises:
        ConfigError: They are none.
    """
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"structured_outputs of type {type(value).__name__} is not understood: pass a "
            "StructuredOutputsParams or a dict of its fields"
        )
    known = StructuredOutputsParams.__dataclass_fields__
    unknown = [str(name) for name in value if name not in known]
    if unknown:
        raise ConfigError(
            f"structured_outputs has no field {unknown[0]!r}: the fields are {', '.join(known)}"
        )
    return StructuredOutputsParams(**value)


def _object_text(name: str, value: Any) -> str:
    """A JSON object as text of one form."""
    try:
        made = json.loads(value) if isinstance(value, str) else value
        is_schema = name == "json" and isinstance(made, bool)
        if not isinstance(made, Mapping) and not is_schema:
            raise ConfigError(
                f"structured_outputs.{name} of type {type(made).__name__} must be a JSON object"
            )
        if made is False:
            raise ConfigError("structured_outputs.json=False lets no answer pass: pass a schema")
        return json.dumps(dict(made) if isinstance(made, Mapping) else made, allow_nan=False)
    except RecursionError:
        raise ConfigError(f"structured_outputs.{name} is nested too deeply: flatten it") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"structured_outputs.{name} is no JSON ({error})") from None


def _choices(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(
            f"structured_outputs.choice={value!r} must be a list of texts with one or more entries"
        )
    for choice in value:
        _check_text("choice", choice)
    return tuple(dict.fromkeys(value))


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"structured_outputs.{name}={value!r} must be non-empty text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"structured_outputs.{name} holds characters that are no Unicode: leave them out"
        ) from None


def _check_size(name: str, value: Any) -> None:
    size = 0 if isinstance(value, bool) else sum(map(len, value))
    if size > MAX_FORM_CHARACTERS:
        raise ConfigError(
            f"structured_outputs.{name} has {size} characters, and at most {MAX_FORM_CHARACTERS} "
            "are compiled: make it smaller"
        )
