"""What a workload's prompts consist of: token ids that a server takes, or text made of them.

Knows vocabularies. Prompts that share blocks share tokens, and a later turn of a session repeats
the answers of the earlier ones, so a server's prefix cache finds what the workload says. The words
mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.workload_tokens import WorkloadTokens
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

if TYPE_CHECKING:
    from experiments.bench.answer import Answer

FIRST_TOKEN = 3  # ids below it are special in many vocabularies
LAST_TOKEN = 256  # every model has as many tokens as there are bytes
MIN_WORDS = 16
PROBE_WORDS = 400


class Vocabulary:
    """The tokens that prompts are made of.

    Args:
        tokens: Their ids.
        tokenizer: Makes text of them; of the package `tokenizers`.
    """

    def __init__(self, tokens: Sequence[int], tokenizer: Any = None) -> None:
        self.tokens = list(tokens)
        self.tokenizer = tokenizer

    @classmethod
    def of_size(cls, size: int | None) -> "Vocabulary":
        """Ids of a vocabulary of this size, without any text; None: of any vocabulary."""
        size = LAST_TOKEN if size is None else size
        if size <= FIRST_TOKEN:
            raise ConfigError(f"--vocab-size {size} must be above {FIRST_TOKEN}")
        return cls(range(FIRST_TOKEN, size))

    @classmethod
    def of_tokenizer(cls, folder: str) -> "Vocabulary":
        """Words of a tokenizer that stay one token each, whatever words stand beside them.

        Raises:
            ConfigError: There is no tokenizer.json, or the package is missing.
        """
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise ConfigError(
                "--tokenizer needs the package tokenizers: pip install -e '.[engine]'"
            ) from None
        path = Path(folder)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(f"--tokenizer {folder}: there is no file {file}")
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the package raises plain Exception
            raise ConfigError(f"{file} is no tokenizer ({error})") from None
        return cls(_stable_words(tokenizer), tokenizer)

    def text(self, token_ids: Sequence[int]) -> str:
        """Their text."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _stable_words(tokenizer: Any) -> list[int]:
    """Tokens that come back as themselves from the text of any row of them."""
    texts = {i: tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())}
    words = [i for i, text in texts.items() if text[:1] == " " and _is_word(text[1:])]
    letters = [i for i, text in texts.items() if len(text) == 1 and _is_word(text)]
    for tokens in (words, letters):
        if len(tokens) >= MIN_WORDS and _come_back(tokenizer, tokens):
            return tokens
    plain = [i for i, text in texts.items() if _is_word(text.strip())]
    return plain or list(texts)


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _come_back(tokenizer: Any, tokens: list[int]) -> bool:
    step = max(len(tokens) // PROBE_WORDS, 1)
    probe = tokens[::step] + tokens[::-step]
    found: list[int] = tokenizer.encode(tokenizer.decode(probe), add_special_tokens=False).ids
    return found == probe


class PromptMaker:
    """Makes the prompts of a load.

    Args:
        vocabulary: The tokens.
        seed: Of the load.
        as_text: Prompts are text; else token ids.
    """

    def __init__(self, vocabulary: Vocabulary, seed: int, as_text: bool) -> None:
        if as_text and vocabulary.tokenizer is None:
            raise ConfigError(
                "text of a given number of tokens needs a tokenizer: add --tokenizer FOLDER (the"
                " served model's), or send token ids to --endpoint /v1/completions"
            )
        self._vocabulary = vocabulary
        self._as_text = as_text
        # drawn numbers stand for the vocabulary's tokens; from here on, for a model's own
        self._first_own = len(vocabulary.tokens)
        self._tokens = WorkloadTokens(self._first_own, seed)

    def numbers(self, item: WorkloadRequest) -> list[int]:
        """The prompt as this object keeps it; what `prompt` and `learn` take."""
        if item.prompt_token_ids is not None:
            return [self._first_own + token for token in item.prompt_token_ids]
        return self._tokens.prompt(item)

    def prompt(self, numbers: Sequence[int]) -> str | list[int]:
        """What to send."""
        tokens, own = self._vocabulary.tokens, self._first_own
        ids = [tokens[number] if number < own else number - own for number in numbers]
        return self._vocabulary.text(ids) if self._as_text else ids

    def learn(self, item: WorkloadRequest, numbers: Sequence[int], answer: "Answer") -> bool:
        """Remember an answer for the next turn; False where its tokens are not known."""
        ids = answer.token_ids
        if ids is None and self._vocabulary.tokenizer is not None:
            ids = self._vocabulary.ids(answer.text)
        if ids is None:
            return False
        own = [self._first_own + token for token in ids[: item.num_output_tokens]]
        self._tokens.learn(item, numbers, own)
        return True
