"""Tiny random checkpoints and tokenizers on disk, as transformers writes them.

Knows how to write; what is done with the files is the tests' business.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
# what makes each architecture what it is; model_type: sizes beside SIZES
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 24, "head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "head_dim": 16,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 40,
        "norm_topk_prob": True,
        "num_hidden_layers": 4,
        "decoder_sparse_step": 2,
    },
}
SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_config(architecture: str, **sizes: Any) -> Any:
    """The transformers config of a tiny model of one of ARCHITECTURES; `sizes` overrides fields."""
    fields = SIZES | ARCHITECTURES[architecture] | sizes
    return AutoConfig.for_model(architecture, **fields)


def make_model(config: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A transformers model (eager attention) whose seeded weights make every part matter.

    Attention is peaked, norms and biases are not trivial, and logits have a spread of about 4, so
    that two programs which compute the same agree on the best token: the gap to the second is
    thousands of rounding errors of float32 wide.
    """
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if parameter.ndim > 1:
                parameter.mul_(_gain(name, config) * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.mul_(0.3)
            else:
                parameter.mul_(0.2).add_(1.0)
    return model.to(dtype).eval()


def _gain(name: str, config: Any) -> float:
    if "embed_tokens" in name:
        # a tied embedding would always predict the token it has just read
        return 1.0 if config.tie_word_embeddings else config.hidden_size**0.5
    if "lm_head" in name:
        return 4.0
    return 2.0 if ".gate.weight" in name else 1.3


def save_model(folder: Path, model: Any, **options: Any) -> None:
    """`save_pretrained` without its progress bar."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder, **options)
    transformers_logging.enable_progress_bar()


def make_checkpoint(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "50GB",
    is_fused: bool = False,
    has_tokenizer: bool = True,
    **sizes: Any,
) -> Path:
    """Write a tiny random checkpoint and return its folder.

    Args:
        folder: where; made if absent.
        architecture: one of ARCHITECTURES.
        seed: of the weights.
        dtype: of the weights in the file.
        max_shard_size: such as "40KB", for several files and an index.
        is_fused: experts in one tensor, as transformers holds them in memory.
        has_tokenizer: write a byte-level tokenizer too.
        sizes: fields of the config.
    """
    model = make_model(make_config(architecture, **sizes), seed, dtype)
    layout = {"save_original_format": False} if is_fused else {}
    save_model(folder, model, max_shard_size=max_shard_size, **layout)
    if has_tokenizer:
        make_tokenizer(folder)
    return folder


def make_tokenizer(folder: Path) -> Path:
    """Write a tokenizer for `AutoTokenizer`: token id b is byte b, then SPECIAL_TOKENS from 256."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(folder)
    return folder


def _byte_characters() -> list[str]:
    """The character that stands for each byte: itself if printable, else one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]
