"""The arguments of a call with several prompts: one for all, or one for each.

Knows their number and their types; what a prompt holds, the input processor knows.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np

from engine.errors import InputError
from engine.input_processor import Prompt


def split_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several as a list; a flat sequence of integers is one prompt.

    Raises:
        InputError: Neither.
    """
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if isinstance(prompts, np.ndarray):
        prompts = prompts.tolist()
    if not isinstance(prompts, Sequence):
        raise InputError(
            f"prompts of type {type(prompts).__name__} are not understood: pass text, token ids, a "
            "dict with 'prompt' or 'prompt_token_ids', or a list of these"
        )
    if len(prompts) and all(isinstance(item, Integral) for item in prompts):
        return [cast(Prompt, prompts)]
    return cast(list[Prompt], list(prompts))


def one_for_each(name: str, value: Any, kind: type, count: int, default: Callable[[], Any]) -> Any:
    """A value for all prompts, or one for each, as a list.

    Args:
        name: For errors.
        value: One, or a sequence.
        kind: What each must be.
        count: Number of prompts.
        default: Makes what stands for None.

    Raises:
        InputError: A list of another length, or an entry of another type.
    """
    if isinstance(value, kind | str) or not isinstance(value, Sequence):
        value = [value] * count
    if len(value) != count:
        raise InputError(
            f"{name} has {len(value)} entries for {count} prompts: pass one for all or one for each"
        )
    for index, item in enumerate(value):
        if item is not None and not isinstance(item, kind):
            wanted = "whole number" if issubclass(kind, Integral) else kind.__name__
            place = f"prompt {index} of {count}: " if count > 1 else ""
            raise InputError(f"{place}{name}={item!r} must be a {wanted}")
    return [default() if item is None else item for item in value]
