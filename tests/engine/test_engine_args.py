"""Flat keywords: each finds its config, and an unknown one its nearest neighbours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.engine_args import make_engine_config
from engine.errors import ModelLoadError
from tests.engine.checkpoints import make_tokenizer
from workbench.errors import ConfigError


def test_keywords_find_their_config() -> None:
    config = make_engine_config(
        "folder",
        tokenizer=None,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=4,
        block_size=8,
        enable_prefix_caching=False,
        seed=3,
        trust_remote_code=False,
        tensor_parallel_size=1,
    )
    assert (config.model, config.dtype, config.seed) == ("folder", "float32", 3)
    assert config.scheduler_config.max_model_len == 128
    assert config.scheduler_config.max_num_seqs == 4
    assert config.cache_config.block_size == 8
    assert not config.cache_config.enable_prefix_caching


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_model_length": 5}, "unknown setting max_model_length=5: did you mean max_model_len"),
        ({"xyzzy": 1}, "unknown setting xyzzy=1: see EngineConfig"),
        ({"scheduler_config": None}, "unknown setting scheduler_config=None"),
        ({"trust_remote_code": True}, "trust_remote_code=True is not possible: code that comes"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2 is not possible"),
        ({"hf_overrides": {"num_hidden_layers": 1}}, "would not fit the weights: set load_format"),
        ({"max_num_seqs": 0}, "max_num_seqs=0 must be at least 1"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5 must be in (0, 1]"),
        ({"seed": "one"}, "seed='one' must be of type int"),
        ({"revision": "main"}, "revision='main' is not possible: the checkpoint is a folder"),
        ({"tokenizer_mode": "slow"}, "tokenizer_mode='slow' is not possible"),
        ({"swap_space": 16}, "swap_space=16 is not possible: set preemption_mode='swap'"),
    ],
)
def test_a_wrong_keyword_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_engine_config("folder", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_vllms_programs_pass_is_taken() -> None:
    config = make_engine_config(
        Path("folder"),
        tokenizer=Path("words"),
        dtype=torch.bfloat16,
        seed=None,
        disable_log_stats=True,
        revision=None,
        tokenizer_mode="auto",
        lora_request=None,
        swap_space=4,
    )
    assert (config.model, config.tokenizer) == ("folder", "words")
    assert (config.dtype, config.seed) == ("bfloat16", 0)


def test_fields_of_the_model_are_overridden_where_weights_are_random(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"config\.json cannot be read"):
        make_engine_config(str(tmp_path), load_format="dummy", hf_overrides={"x": 1})
    (tmp_path / "config.json").write_text(json.dumps({"x": 0, "y": 2}))
    changes = {"load_format": "dummy", "hf_overrides": {"x": 1}}
    bare = make_engine_config(str(tmp_path), **changes)
    assert (bare.model, bare.tokenizer) == ({"x": 1, "y": 2}, None)
    make_tokenizer(tmp_path)
    assert make_engine_config(str(tmp_path), **changes).tokenizer == str(tmp_path)
    assert make_engine_config({"y": 3}, **changes).model == {"y": 3, "x": 1}
    assert make_engine_config("folder", hf_overrides=None).model == "folder"
