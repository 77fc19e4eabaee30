"""A model of pure chance, held to a grammar: the worst one that a grammar can meet."""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.byte_tokenizer import byte_level_tokenizer
from engine.structured_output import GrammarCompiler
from workbench.sampling_params import SamplingParams
from workbench.structured_output import Grammar, allowed_token_ids

CORPUS = (
    '{"name":"Ada","age":36,"tags":["red","green"],"x":{"a long name":[1.5,-2e3,null,true]}}',
    '[[[[{{{{"é":[{"name":"name"},{"name":"tags"}],"x":"ultramarine"}]]]]}}}}","","":{"":[',
)


@dataclass(frozen=True)
class Words:
    """A tokenizer and a vocabulary that is a little larger, as models have them."""

    tokenizer: Any
    vocab_size: int
    eos: int

    def compiler(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer, self.vocab_size, [self.eos])


@cache
def words(kind: str) -> Words:
    """ "bytes": every byte is a token. "pieces": tokens of many bytes, as brackets and quotes."""
    if kind == "bytes":
        return Words(byte_level_tokenizer(), 300, 257)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text * 3 for text in CORPUS] * 3, trainer)
    return Words(tokenizer, 512, 0)


@cache
def compiler(kind: str) -> GrammarCompiler:
    """A compiler for such words, shared by the tests."""
    return words(kind).compiler()


@dataclass(frozen=True)
class Answer:
    """What a model of chance wrote, and how it ended: "end", "complete" or "length"."""

    token_ids: list[int]
    text: str
    how: str


def write(grammar: Grammar, given: Words, max_tokens: int, seed: int = 0) -> Answer:
    """An answer whose tokens are drawn among those that are allowed."""
    random = Random(seed)
    row = np.empty(grammar.num_words, dtype=np.int32)
    token_ids: list[int] = []
    how = "length"
    while len(token_ids) < max_tokens:
        grammar.fill_bitmask(row, max_tokens - len(token_ids))
        assert grammar.failure is None, grammar.failure
        may = allowed_token_ids(row).tolist()
        assert may, f"nothing may follow {given.tokenizer.decode(token_ids)!r}"
        assert max(may) < given.vocab_size
        token_id = random.choice(may)
        if token_id == given.eos:
            how = "end"
            break
        assert grammar.accept_token(token_id), grammar.failure
        token_ids.append(token_id)
        if grammar.is_complete:
            how = "complete"
            break
    return Answer(token_ids, given.tokenizer.decode(token_ids), how)


def answer(
    max_tokens: int = 60, seed: int = 0, kind: str = "bytes", ignore_eos: bool = False, **form: Any
) -> Answer:
    """An answer of the form that the fields of StructuredOutputsParams say."""
    params = SamplingParams(structured_outputs=form, max_tokens=max_tokens, ignore_eos=ignore_eos)
    grammar = compiler(kind).compile(params)
    assert grammar is not None
    return write(grammar, words(kind), max_tokens, seed)
