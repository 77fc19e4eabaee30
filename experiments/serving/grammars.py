"""What compiles grammars in a core process: from the tokenizer's own file, without transformers.

Knows where the tokenizer is. Which forms there are, `engine.structured_output` knows.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.errors import InputError


def grammar_compiler(settings: Mapping[str, Any], vocab_size: int) -> Any:
    """A GrammarCompiler; None where there is no tokenizer, or no package for grammars.

    Args:
        settings: `tokenizer` ("bytes", the path of a tokenizer.json, or None) and `eos_token_ids`.
        vocab_size: Of the model.
    """
    source = settings.get("tokenizer")
    if source is None:
        return None
    try:
        from engine.structured_output.compiler import GrammarCompiler
    except ModuleNotFoundError:
        return None
    compiler = GrammarCompiler(_tokenizer(source), vocab_size, settings.get("eos_token_ids", ()))
    # now, as later all requests would wait for it; what is wrong the first grammar will say
    with suppress(InputError):
        compiler.warm_up()
    return compiler


def _tokenizer(source: str) -> Any:
    if source == "bytes":
        from engine.byte_tokenizer import byte_level_tokenizer

        return byte_level_tokenizer()
    from tokenizers import Tokenizer

    return Tokenizer.from_file(source)
