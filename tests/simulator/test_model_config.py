"""Model presets against published sizes, and users' own config.json files."""

import json
from pathlib import Path

import pytest
import yaml

from simulator.model_config import PRESETS, ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
PUBLISHED = {  # 1e9 parameters, from the models' cards and papers
    "llama3_8b": 8.03,
    "llama3_70b": 70.6,
    "qwen3_0_6b": 0.596,
    "qwen3_1_7b": 1.72,
    "qwen3_4b": 4.02,
    "qwen3_8b": 8.19,
    "qwen3_14b": 14.8,
    "qwen3_32b": 32.8,
    "qwen3_30b_a3b": 30.5,
    "mistral_7b": 7.25,
    "mistral_7b_v0_1": 7.24,
    "mixtral_8x7b": 46.7,
}
SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 100,
}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name: str, billions: float) -> None:
    assert load_model_preset(name).num_parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_every_preset_has_a_published_size_and_a_yaml() -> None:
    assert {folder.name for folder in PRESETS.iterdir()} == set(PUBLISHED)
    named = {yaml.safe_load(file.read_text()).get("name") for file in CONF.glob("*.yaml")}
    assert named - {None} == set(PUBLISHED)


def test_active_parameters_of_a_mixture() -> None:
    assert load_model_preset("qwen3_30b_a3b").num_active_parameters / 1e9 == pytest.approx(
        3.3, rel=0.02
    )
    assert load_model_preset("mixtral_8x7b").num_active_parameters / 1e9 == pytest.approx(
        12.9, rel=0.01
    )


def test_bytes_of_weights_and_kv(llama: ModelConfig) -> None:
    assert llama.weight_bytes() == 2 * llama.num_parameters
    assert llama.kv_bytes_per_token() == 131072
    assert llama.kv_bytes_per_token(ParallelConfig(4, 2)) == 131072 / 8
    # beyond 8 key-value heads they are copied, not divided
    assert llama.kv_bytes_per_token(ParallelConfig(16)) == 131072 / 8
    assert load_model_preset("llama3_8b", dtype="fp8").weight_bytes() == llama.num_parameters
    assert load_model_preset("llama3_8b", kv_cache_dtype="fp8").kv_bytes_per_token() == 65536


def test_experts_are_divided_over_tensor_and_data_ranks() -> None:
    model = load_model_preset("qwen3_30b_a3b")
    one = model.weight_bytes()
    spread = model.weight_bytes(ParallelConfig(2, 1, 2, enable_expert_parallel=True))
    sliced = model.weight_bytes(ParallelConfig(2, 1, 2))
    assert spread == sliced
    experts = 2.0 * model.num_moe_layers * model.num_experts * model.expert_parameters
    assert spread == pytest.approx(experts / 4 + (one - experts) / 2, rel=0.01)


def test_own_config_file_folder_and_mapping(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL))
    by_file = ModelConfig.from_hf_config(file)
    assert by_file == ModelConfig.from_hf_config(str(file), name=tmp_path.name)
    assert ModelConfig.from_hf_config(tmp_path).num_parameters == by_file.num_parameters
    assert ModelConfig.from_hf_config(SMALL).head_dim == 8
    assert by_file.num_key_value_heads == 8
    assert by_file.intermediate_size == 256


def test_other_spellings_and_unknown_fields() -> None:
    nested = {
        "model_type": "multi",
        "text_config": SMALL
        | {
            "num_key_value_heads": 2,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "shared_expert_intermediate_size": 16,
            "dtype": "float16",
            "sliding_window": 128,
            "use_sliding_window": False,
            "something_new": {"deep": [1]},
        },
    }
    model = ModelConfig.from_hf_config(nested)
    assert (model.num_experts, model.num_moe_layers, model.dtype) == (8, 1, "float16")
    assert model.sliding_window is None
    strided = ModelConfig.from_hf_config(
        SMALL | {"num_experts": 4, "num_experts_per_tok": 1, "decoder_sparse_step": 2}
    )
    assert strided.num_dense_layers == 1


@pytest.mark.parametrize(
    ("change", "window"),
    [
        ({}, 128),
        ({"layer_types": ["sliding_attention", "sliding_attention"]}, 128),
        ({"layer_types": ["sliding_attention", "full_attention"]}, None),
        ({"sliding_window_pattern": 6}, None),
        ({"use_sliding_window": False}, None),
    ],
)
def test_a_window_is_that_of_all_layers_or_none(
    change: dict[str, object], window: int | None
) -> None:
    model = ModelConfig.from_hf_config(SMALL | {"sliding_window": 128} | change)
    assert model.sliding_window == window


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": None}, "vocab_size"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads=3"),
        ({"num_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok=3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ],
)
def test_bad_sizes_are_named(change: dict[str, int | None], message: str) -> None:
    config = {key: value for key, value in (SMALL | change).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hf_config(config)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        ModelConfig.from_hf_config(tmp_path / "none.json")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        ModelConfig.from_hf_config(bad)
    bad.write_text("[1]")
    with pytest.raises(ConfigError, match="JSON object"):
        ModelConfig.from_hf_config(bad)
    with pytest.raises(ConfigError, match="llama3_70b"):
        load_model_preset("gpt5")
    with pytest.raises(ConfigError, match="dtype='fp3'"):
        load_model_preset("llama3_8b", dtype="fp3")


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (ParallelConfig(3), "tensor_parallel_size=3"),
        (ParallelConfig(1, 64), "pipeline_parallel_size=64"),
    ],
)
def test_degrees_that_do_not_divide(
    llama: ModelConfig, parallel: ParallelConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        llama.check_parallel(parallel)


def test_degrees_are_positive_integers() -> None:
    for value in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="tensor_parallel_size"):
            ParallelConfig(value)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="enable_expert_parallel"):
        ParallelConfig(enable_expert_parallel="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 16 experts"):
        load_model_preset("mixtral_8x7b").check_parallel(
            ParallelConfig(8, 1, 2, enable_expert_parallel=True)
        )
