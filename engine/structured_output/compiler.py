"""From the form that an answer must have to the grammar that holds it to that form.

Grammars are compiled within limits, once, and kept; every request gets a state of its own. Knows
llguidance's notations and what they are made from; knows no request and no model.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLParserLimits, StructTag
from llguidance.gbnf_to_lark import any_to_lark

from engine.errors import InputError
from engine.structured_output.grammar import LLGrammar
from engine.structured_output.vocabulary import Vocabulary, one_line
from engine.structured_output.wrap_up import WrapUp
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_COMPILED = 64
"""Compiled grammars that are kept: most take a quarter of a megabyte, the largest 15 and more."""
LEXER_FUEL = 100_000
"""Most work on the regular expressions of a grammar, in llguidance's unit: about 0.1 s."""
ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A grammar at its beginning, and what closes its answers in time, if anything does."""

    matcher: LLMatcher
    wrap_up: WrapUp | None


class GrammarCompiler:
    """Compiles grammars for one model. May be used from several threads.

    Args:
        tokenizer: Of transformers or tokenizers.
        vocab_size: Of the model; may exceed the tokenizer's.
        eos_token_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(eos_token_ids)
        self._lock = Lock()
        self._vocabulary_lock = Lock()
        self._vocabulary: Vocabulary | None = None
        self._compiled: OrderedDict[StructuredOutputsParams, _Compiled | InputError] = OrderedDict()

    def warm_up(self) -> None:
        """Read the tokenizer now, which the first grammar would otherwise wait for.

        Raises:
            InputError: It is not understood.
        """
        self._read_vocabulary()

    def validate(self, params: SamplingParams) -> None:
        """Compile what a request asks for, and nothing if it asks for no form.

        Raises:
            InputError: It does not compile; in one line.
        """
        if params.structured_outputs is not None:
            self._find(params.structured_outputs)

    def compile(self, params: SamplingParams) -> LLGrammar | None:
        """The grammar of one answer, at its beginning; None if it may have any form.

        Raises:
            InputError: It does not compile; in one line.
        """
        form = params.structured_outputs
        return None if form is None else self._begin(self._find(form), params)

    def compiled(self, params: SamplingParams) -> LLGrammar | None:
        """The same without any work; None if its form has not been compiled.

        Raises:
            InputError: It is known not to compile.
        """
        form = params.structured_outputs
        known = None if form is None else self._known(form)
        return None if known is None else self._begin(_passed(known), params)

    def _begin(self, compiled: _Compiled, params: SamplingParams) -> LLGrammar:
        return LLGrammar(
            compiled.matcher.deep_copy(),
            self._read_vocabulary(),
            compiled.wrap_up,
            num_tokens_before_end=None if params.ignore_eos else params.min_tokens,
        )

    def _find(self, form: StructuredOutputsParams) -> _Compiled:
        found = self._known(form)
        if found is None:
            # others may ask for what is known meanwhile
            found = self._compile(form)
            with self._lock:
                self._compiled[form] = found
                while len(self._compiled) > MAX_COMPILED:
                    self._compiled.popitem(last=False)
        return _passed(found)

    def _known(self, form: StructuredOutputsParams) -> _Compiled | InputError | None:
        with self._lock:
            found = self._compiled.get(form)
            if found is not None:
                self._compiled.move_to_end(form)
            return found

    def _read_vocabulary(self) -> Vocabulary:
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(
                    self._tokenizer, self._vocab_size, self._eos_token_ids
                )
            return self._vocabulary

    def _compile(self, form: StructuredOutputsParams) -> _Compiled | InputError:
        vocabulary = self._read_vocabulary()
        try:
            notation = _notation(form)
        except Exception as error:  # llguidance's translators raise whatever they like
            return _refusal(form, error)
        # with verbose errors a message may hold the whole grammar
        limits = LLParserLimits(verbose_errors=False, initial_lexer_fuel=LEXER_FUEL)
        matcher = LLMatcher(vocabulary.ll, notation, log_level=0, limits=limits)
        # some grammars are found to be too large only by the first look at the vocabulary
        if matcher.is_error() or not matcher.compute_bitmask() or matcher.is_error():
            return _refusal(form, matcher.get_error())
        wrap_up = None
        if form.is_json and form.wrap_up:
            wrap_up = WrapUp(vocabulary, str(form.json or ANY_OBJECT))
            wrap_up.prepare(matcher)
        return _Compiled(matcher, wrap_up)


def _passed(found: _Compiled | InputError) -> _Compiled:
    if isinstance(found, InputError):
        raise InputError(str(found))
    return found


def _refusal(form: StructuredOutputsParams, error: object) -> InputError:
    reason = one_line(error) or type(error).__name__
    return InputError(f"structured_outputs.{form.form} does not compile: {reason}")


def _notation(form: StructuredOutputsParams) -> str:
    """A form in llguidance's own notation."""
    if form.is_json:
        options: JsonCompileOptions = {"whitespace_flexible": not form.disable_any_whitespace}
        if form.whitespace_pattern is not None:
            options = {"whitespace_pattern": form.whitespace_pattern}
        schema = str(form.json or ANY_OBJECT)
        if schema == "true":
            schema = "{}"
        return LLMatcher.grammar_from_json_schema(schema, overrides=options)
    if form.regex is not None:
        return LLMatcher.grammar_from_regex(form.regex)
    if form.choice is not None:
        choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in form.choice)
        return LLMatcher.grammar_from_lark(f"start: {choices}")
    if form.grammar is not None:
        return LLMatcher.grammar_from_lark(any_to_lark(form.grammar))
    return _tags(json.loads(str(form.structural_tag)))


def _tags(tag: dict[str, Any]) -> str:
    """Free text with tagged JSON in it."""
    structures, triggers = tag["structures"], tag["triggers"]
    tags = []
    for structure in structures:
        begin = structure["begin"]
        trigger = next((each for each in triggers if begin.startswith(each)), None)
        if trigger is None:
            raise ConfigError(f"begin={begin!r} starts with none of the triggers {triggers!r}")
        tags.append(
            StructTag(
                trigger=trigger, begin=begin, grammar=structure["schema"], end=structure["end"]
            )
        )
    return StructTag.to_grammar(tags, assume_special=False)
