"""The model of a benchmark: real shapes with dummy weights, or a toy of the same architecture."""

import json
from pathlib import Path
from typing import Any

TOY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}


def model_fields(folder: Path, is_dry_run: bool) -> dict[str, Any]:
    """The fields of a folder's config.json; in a dry run shrunk to a toy."""
    fields: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if is_dry_run:
        fields |= TOY
        if "num_experts" in fields:
            fields |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return fields
