"""A small random Llama with a byte-level tokenizer, written as a checkpoint: no download.

    python -m engine.demo_checkpoint FOLDER

It knows nothing and says nothing sensible; its speed and its scheduling are real.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.byte_tokenizer import byte_tokenizer
from workbench.errors import WorkbenchError

CONFIG: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}


def write_demo_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write config.json, model.safetensors and the tokenizer; the folder.

    Raises:
        WorkbenchError: A package that writes it is not installed, or the folder cannot be written.
    """
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise WorkbenchError(
            f"a checkpoint is written with {error.name}, which is not installed: "
            "pip install -e '.[engine]'"
        ) from error

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(
            f"{folder} cannot be made ({error.strerror}): name a folder that can be written"
        ) from error
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if (folder / "config.json").exists():
        print(f"{folder} holds a checkpoint already")
        return 0
    try:
        print(f"wrote {write_demo_checkpoint(folder)}")
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
