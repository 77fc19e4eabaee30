"""The checkpoint of the comparison: a random Llama, hidden 512, 8 layers, 8/4 heads, vocab 8192."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    vocab_size=8192,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
)


def main(folder: str, dtype: str) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(CONFIG).to(getattr(torch, dtype)).save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
