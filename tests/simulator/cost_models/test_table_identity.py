"""Tables of another model or GPU are refused, and used where the user insists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.cost_models.layerwise import LayerwiseCostModel
from simulator.cost_models.table_identity import check_gpu, check_profile
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

Load = Callable[[str], HardwareConfig]
META: dict[str, Any] = {
    "gpu": "NVIDIA H100 80GB HBM3",
    "hardware": "H100",
    "model": "meta-llama/Llama-3.1-8B",
    "variant": "bf16",
    "tp_degrees": [1, 2],
    "engine_effective": {
        "hf_overrides": {
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "intermediate_size": 7168,
            "vocab_size": 64128,
        }
    },
}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "tp1").mkdir(exist_ok=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump(META | changes))
    return folder


@pytest.mark.parametrize(
    ("hardware", "name", "same"),
    [
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("a10", "NVIDIA A100-SXM4-80GB", False),
        ("a100_40gb", "NVIDIA A100-SXM4-80GB", False),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx_pro_6000", "RTXPRO6000", True),
        ("l40s", "NVIDIA L40S", True),
        ("h100", "NVIDIA H200", False),
        ("h100", "", True),
    ],
)
def test_names_of_gpus(hardware: str, name: str, same: bool) -> None:
    if same:
        check_gpu(hardware, [name], Path("table"))
        return
    with pytest.raises(ConfigError, match=f"measured on {name}.*allow_mismatch=true"):
        check_gpu(hardware, [name], Path("table"))


def test_a_profile_of_the_model_fits_with_and_without_its_degree(
    tmp_path: Path, llama: ModelConfig
) -> None:
    folder = write(tmp_path)
    check_profile(llama, "h100", folder)
    check_profile(llama, "h100", folder / "tp1")
    (folder / "meta.yaml").unlink()
    check_profile(load_model_preset("qwen3_32b"), "v100", folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "NVIDIA A100", "hardware": "A100"}, "measured on NVIDIA A100, not on .*h100"),
        ({"variant": "fp8"}, "bytes of a weight=1"),
        (
            {"engine_effective": {"hf_overrides": {"num_attention_heads": 20}}},
            "num_attention_heads / 2=20, and meta-llama/Llama-3.1-8B has 16",
        ),
        ({"engine_effective": {}, "model": "Qwen/Qwen3-8B"}, "model=Qwen/Qwen3-8B"),
    ],
)
def test_another_profile_is_refused(
    tmp_path: Path, llama: ModelConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_profile(llama, "h100", write(tmp_path, **changes))


def test_a_name_decides_where_no_size_is_told(tmp_path: Path, llama: ModelConfig) -> None:
    told = {"engine_effective": {}, "model": "meta-llama/Llama-3.1-8B-Instruct"}
    check_profile(llama, "h100", write(tmp_path, **told))


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, llama: ModelConfig) -> None:
    (write(tmp_path) / "meta.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"meta\.yaml cannot be read as YAML"):
        check_profile(llama, "h100", tmp_path)


def test_the_cost_model_asks_and_can_be_told_not_to(
    shared_dir: Path, hardware: Load, llama: ModelConfig
) -> None:
    path = str(shared_dir / "profiles/layerwise/RTX4090/meta-llama/Llama-3.1-8B")
    with pytest.raises(ConfigError, match="choose the hardware of the table"):
        LayerwiseCostModel(llama, hardware("a100"), ParallelConfig(), path)
    with pytest.raises(ConfigError, match="give the profile of this model"):
        LayerwiseCostModel(
            load_model_preset("qwen3_8b"), hardware("rtx4090"), ParallelConfig(), path
        )
    LayerwiseCostModel(llama, hardware("a100"), ParallelConfig(), path, allow_mismatch=True)


def test_keys_of_another_width_are_refused(tmp_path: Path) -> None:
    narrow = load_model_preset("llama3_8b", kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match=r"bytes of a key=2, and .* has 1"):
        check_profile(narrow, "h100", write(tmp_path))
    check_profile(narrow, "h100", write(tmp_path, variant="bf16-kvfp8"))
    engine = META["engine_effective"] | {"kv_cache_dtype": "fp8_e4m3"}
    check_profile(narrow, "h100", write(tmp_path, engine_effective=engine))
