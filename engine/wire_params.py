"""Sampling parameters as plain values, and back.

Only what differs from the defaults is sent. The values were checked where the user gave them, so
they are not checked again. Works for any frozen dataclass whose fields are plain values, enums, or
such dataclasses again; knows none of the fields.
"""

import enum
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from workbench.sampling_params import SamplingParams

_DEFAULTS = SamplingParams()


def params_to_wire(params: SamplingParams) -> dict[str, Any]:
    """The fields that are not the default, by name."""
    wire = {}
    for name in _names(SamplingParams):
        value = getattr(params, name)
        if value != getattr(_DEFAULTS, name):
            wire[name] = _plain(value)
    return wire


def params_from_wire(wire: Mapping[str, Any]) -> SamplingParams:
    """What `params_to_wire` was given."""
    params = object.__new__(SamplingParams)
    for name in _names(SamplingParams):
        if name in wire:
            value = _restored(wire[name], SamplingParams, name)
        else:
            value = getattr(_DEFAULTS, name)
        object.__setattr__(params, name, value)
    return params


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _restored(value: Any, owner: type, name: str) -> Any:
    """A plain value as a field of `owner` holds it."""
    kind = _special_kinds(owner).get(name)
    if kind is None or value is None:
        return _as_tuple(value)
    if issubclass(kind, enum.Enum):
        return kind(value)
    made = object.__new__(kind)
    for field_name, item in value.items():
        object.__setattr__(made, field_name, _restored(item, kind, field_name))
    return made


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _special_kinds(kind: type) -> dict[str, type]:
    """Fields that hold an enum or a dataclass, or None, with its class."""
    hints = typing.get_type_hints(kind)
    found = {name: next(_classes(hints[name]), None) for name in _names(kind)}
    return {name: special for name, special in found.items() if special is not None}


def _classes(hint: Any) -> Iterator[type]:
    for option in typing.get_args(hint) or (hint,):
        if isinstance(option, type) and (issubclass(option, enum.Enum) or is_dataclass(option)):
            yield option
