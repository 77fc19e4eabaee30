"""Which token ids a simulated model may say.

Knows ids only. What they read as, and so which of them are chosen, is known by a tokenizer outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.bounds import check_count
from workbench.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a simulated model.

    Attributes:
        size: Ids are below it.
        spoken: Ids that answers are made of; none: all.
        eos_token_id: What ends an answer, or None.
        closing: Ids that end a string: a grammar that allows one of them gets one more often, or
            its strings would hardly ever end.

    Raises:
        ConfigError: An id outside of the vocabulary.
    """

    size: int
    spoken: Sequence[int] = ()
    eos_token_id: int | None = None
    closing: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_count("vocabulary.size", self.size)
        eos = () if self.eos_token_id is None else (self.eos_token_id,)
        for name, token_ids in (
            ("spoken", self.spoken),
            ("closing", self.closing),
            ("eos_token_id", eos),
        ):
            wrong = next((i for i in token_ids if not 0 <= i < self.size), None)
            if wrong is not None:
                raise ConfigError(
                    f"vocabulary.{name} holds the token id {wrong}, and the model has"
                    f" {self.size}: take the tokenizer of this model"
                )
