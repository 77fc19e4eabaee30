"""A tiny Llama for a server: a config and a tokenizer, no weights.

vLLM fills the weights itself (`--load-format dummy`), so that neither torch nor a download is
needed. Knows the files that a tokenizer and a model consist of. Steps take as long as they would
with real weights of these sizes; what is answered means nothing.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.config import at_least, check_types
from workbench.errors import ConfigError

NUM_SPECIAL = 3  # unknown, beginning and end of a text come first in the vocabulary


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes of the model, with the names of a Hugging Face config."""

    hidden_size: int = 512
    intermediate_size: int = 1408
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    vocab_size: int = 4096

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, *self.__dataclass_fields__)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} must be a multiple of"
                f" num_attention_heads={self.num_attention_heads}"
            )


def write_checkpoint(folder: Path, sizes: ModelSizes, max_model_len: int) -> Path:
    """Write config.json, tokenizer.json and tokenizer_config.json; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = asdict(sizes) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": max_model_len,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = list(special.values())
    words += [f"w{number}" for number in range(sizes.vocab_size - len(words))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [_special(number, word) for number, word in enumerate(special.values())],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
    settings = special | {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, content in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def _special(number: int, word: str) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": word, "special": True, **flags}
