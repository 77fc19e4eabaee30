"""The grammars of a model's answers, or the reason why it can have none.

Knows that a tokenizer or a package may be missing; what a grammar is, engine.structured_output
knows.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from workbench.sampling_params import SamplingParams
from workbench.structured_output import Grammar

if TYPE_CHECKING:
    from engine.structured_output import GrammarCompiler


class Grammars:
    """Checks and begins grammars. May be used from several threads.

    Args:
        tokenizer: Of transformers or tokenizers, or None.
        no_tokenizer_reason: Said where one is needed and there is none.
        vocab_size: Of the model.
        eos_token_ids: Tokens that end an answer.
        are_elsewhere: Another process compiles them, and refuses what does not compile.
    """

    def __init__(
        self,
        tokenizer: Any,
        no_tokenizer_reason: str,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        are_elsewhere: bool = False,
    ) -> None:
        self._are_elsewhere = are_elsewhere
        self._why_none = ""
        self._compiler: GrammarCompiler | None = None
        if tokenizer is None:
            self._why_none = f"need a tokenizer, and {no_tokenizer_reason}"
        elif find_spec("llguidance") is None:
            self._why_none = "need the package llguidance, which is not installed"
        elif not are_elsewhere:
            self._compiler = _compiler(tokenizer, vocab_size, eos_token_ids)

    def check(self, params: SamplingParams) -> None:
        """Refuse a form that does not compile, or that nothing here can compile.

        Raises:
            InputError: In one line.
        """
        if params.structured_outputs is not None:
            if self._are_elsewhere and not self._why_none:
                return
            self._get_compiler().validate(params)

    def begin(self, params: SamplingParams) -> Grammar | None:
        """The grammar of one answer, at its beginning; None if it may have any form.

        Raises:
            InputError: As `check`.
        """
        if params.structured_outputs is None:
            return None
        return self._get_compiler().compile(params)

    def _get_compiler(self) -> "GrammarCompiler":
        if self._compiler is None:
            raise InputError(f"structured_outputs {self._why_none}: leave them out")
        return self._compiler


def _compiler(tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int]) -> "GrammarCompiler":
    from engine.structured_output import GrammarCompiler

    return GrammarCompiler(tokenizer, vocab_size, eos_token_ids)
