"""Loading: any file layout, any dtype, about one copy in memory, and one line for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.checkpoint import Checkpoint
from engine.errors import ModelLoadError, OutOfMemoryError
from engine.layers.linear import Linear
from engine.loader import is_out_of_memory, load_model, resolve_dtype
from engine.models.causal_lm import CausalLM
from engine.models.registry import read_hf_config
from tests.engine.checkpoints import make_checkpoint, make_config
from workbench.errors import ConfigError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path, has_tokenizer=False, num_hidden_layers=2)


def load(folder: Path, **settings: Any) -> CausalLM:
    """The model with weights that can be read."""
    settings.setdefault("adapts_to_cpu", False)
    return load_model(read_hf_config(folder), folder, **settings)


def refused(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a single-file checkpoint."""
    tensors = load_file(folder / WEIGHTS) | {
        name: tensor for name, tensor in changes.items() if tensor is not None
    }
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
    save_file(tensors, folder / WEIGHTS)


def assert_equal_weights(one: CausalLM, other: CausalLM) -> None:
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert a.equal(b), name


@pytest.mark.parametrize("architecture", ["llama", "mixtral", "qwen3_moe"])
def test_shards_and_one_file_load_the_same(architecture: str, tmp_path: Path) -> None:
    one = make_checkpoint(tmp_path / "one", architecture, has_tokenizer=False)
    many = make_checkpoint(
        tmp_path / "many", architecture, has_tokenizer=False, max_shard_size="60KB"
    )
    assert len(list(many.glob("*.safetensors"))) > 2
    assert_equal_weights(load(one), load(many))


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3_moe"])
def test_both_layouts_of_experts_load_the_same(architecture: str, tmp_path: Path) -> None:
    each = make_checkpoint(tmp_path / "each", architecture, has_tokenizer=False)
    fused = make_checkpoint(tmp_path / "fused", architecture, is_fused=True, has_tokenizer=False)
    assert any(name.endswith("experts.down_proj") for name in load_file(fused / WEIGHTS))
    assert_equal_weights(load(each), load(fused))


def test_fused_parts_lie_in_order(folder: Path) -> None:
    tensors, layer = load_file(folder / WEIGHTS), load(folder).layers[1]
    parts = [tensors[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert layer.attention.qkv.weight.equal(torch.cat(parts))
    parts = [tensors[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert layer.mlp.gate_up.weight.equal(torch.cat(parts))


@pytest.mark.parametrize("name", ["bfloat16", "float16", "half", "float32", "float"])
def test_weights_are_cast_while_they_are_loaded(name: str, folder: Path) -> None:
    dtype = {"half": torch.float16, "float": torch.float32}.get(name) or getattr(torch, name)
    model = load(folder, dtype=name)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    expected = load_file(folder / WEIGHTS)["lm_head.weight"].to(dtype)
    assert model.head.weight.equal(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cpu_without_16_bit_products_holds_the_same_values_in_float32(
    dtype: torch.dtype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.loader.is_native", lambda dtype, device: False)
    model, plain = load(folder, dtype=dtype, adapts_to_cpu=True), load(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.embedding.weight.equal(plain.embedding.weight.float())
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    expected = x @ plain.layers[0].attention.qkv.weight.float().T
    torch.testing.assert_close(model.layers[0].attention.qkv(x), expected)


def test_a_model_that_does_not_fit_in_float32_stays_in_16_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_bytes = load(folder, dtype="bfloat16").num_bytes()
    monkeypatch.setattr("engine.loader.is_native", lambda dtype, device: False)
    monkeypatch.setattr("engine.loader.available_bytes", lambda device: 2 * num_bytes)
    model = load(folder, dtype="bfloat16", adapts_to_cpu=True)
    assert model.embedding.weight.dtype == torch.bfloat16


def test_dtype_auto_is_that_of_the_config() -> None:
    config = make_config("llama", dtype="bfloat16")
    assert resolve_dtype(config, "auto") == torch.bfloat16
    config.dtype = None
    assert resolve_dtype(config, "auto") == torch.float32
    assert resolve_dtype(config, torch.float16) == torch.float16


def test_tied_embeddings_are_one_tensor_even_if_the_file_has_two(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, has_tokenizer=False, tie_word_embeddings=True)
    model = load(folder)
    assert model.head.weight is model.embedding.weight
    assert model.num_bytes() == sum(
        tensor.nbytes for tensor in load_file(folder / WEIGHTS).values()
    )
    change(folder, **{"lm_head.weight": torch.zeros(320, 48)})
    assert_equal_weights(load(folder), model)


def test_old_rotary_buffers_are_ignored(folder: Path) -> None:
    change(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)})
    load(folder)


def test_finalize_is_called_once_a_linear_layer_after_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(
        Linear, "finalize", lambda self: seen.append((id(self), self.weight.sum().item()))
    )
    model = load(folder, adapts_to_cpu=True)
    linears = [module for module in model.modules() if isinstance(module, Linear)]
    assert seen == [(id(module), module.weight.sum().item()) for module in linears]
    assert len(linears) == 2 * 4 + 1


def write_shards(folder: Path, model: CausalLM, count: int) -> None:
    tensors = {name: part.tensor.clone() for name, part in model.destinations().items()}
    files = {name: f"{index % count}.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


MEASURE_PEAK = """
import sys
import torch
from engine.layers.packed_weight import pack
from engine.loader import load_model
from engine.models.registry import read_hf_config

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

config = read_hf_config(sys.argv[1])
load_model(config, None, "dummy", device="meta")
pack(torch.ones(64, 64)).linear(torch.ones(1, 64), None)  # what a library takes once
before = memory("VmRSS")
model = load_model(config, sys.argv[1])
print((memory("VmHWM") - before) / model.num_bytes())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc to measure with")
def test_peak_memory_is_about_one_copy(tmp_path: Path) -> None:
    config = make_config("llama", hidden_size=512, intermediate_size=2048, vocab_size=2048)
    config.num_hidden_layers = 5
    config.save_pretrained(tmp_path)
    write_shards(tmp_path, load_model(config, None, "dummy", adapts_to_cpu=False), count=10)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_PEAK, str(tmp_path)],
        # weights this small would come from a heap, which keeps holes of what was freed: those of
        # real models are mapped and unmapped one by one, and so are these
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parents[2]), "MALLOC_MMAP_THRESHOLD_": str(1 << 16)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 < float(done.stdout) < 1.2


def test_a_large_file_is_mapped_piece_by_piece(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folder)
    for parameter in model.parameters():
        parameter.zero_()
    opened: list[Path] = []
    checkpoint = Checkpoint(folder)
    monkeypatch.setattr(
        "engine.checkpoint.safe_open",
        lambda file, **options: opened.append(file) or safe_open(file, **options),
    )
    checkpoint.copy_into(model.destinations(), mapped_bytes=20_000)
    assert 5 < len(opened) < 20
    assert_equal_weights(model, load(folder))


def test_a_truncated_file_is_refused(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1000])
    assert "truncated or damaged" in refused(folder)
    (folder / WEIGHTS).write_bytes(data[:4])
    assert "truncated or damaged" in refused(folder)
    (folder / WEIGHTS).write_bytes(b"")
    assert "truncated or damaged" in refused(folder)


def test_an_absent_shard_and_a_broken_index_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, has_tokenizer=False, max_shard_size="60KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "is not an index" in refused(folder)


def test_tensors_that_are_missing_are_named(folder: Path) -> None:
    change(folder, **{"model.layers.1.self_attn.k_proj.weight": None})
    message = refused(folder)
    assert "lacks 1 tensors" in message
    assert "model.layers.1.self_attn.k_proj.weight" in message


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "mixtral", has_tokenizer=False)
    change(folder, **{"model.layers.1.block_sparse_moe.experts.2.w3.weight": None})
    assert "model.layers.1.block_sparse_moe.experts.2.w3.weight" in refused(folder)


def test_more_layers_than_the_config_says_are_refused(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(fields))
    message = refused(folder)
    assert "9 tensors that the model does not know" in message
    assert "model.layers.1." in message
    assert message.count("model.layers") == 4


def test_a_shape_that_does_not_fit_is_refused_with_both_shapes(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text()) | {"vocab_size": 321}
    (folder / "config.json").write_text(json.dumps(fields))
    message = refused(folder)
    assert "[320, 48]" in message
    assert "[321, 48]" in message


def test_quantized_tensors_are_refused(folder: Path) -> None:
    change(folder, **{"model.norm.weight": torch.ones(48, dtype=torch.int8)})
    message = refused(folder)
    assert "model.norm.weight" in message
    assert "I8" in message


def test_a_folder_without_safetensors_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "has no *.safetensors" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    message = refused(folder)
    assert "pytorch_model.bin" in message
    assert "convert them to safetensors" in message


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="load_format='dummy'"):
        load_model(make_config("llama"), None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"load_format": "gguf"}, "load_format 'gguf'"), ({"dtype": "int8"}, "dtype 'int8'")],
)
def test_settings_that_do_not_exist_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_model(make_config("llama"), None, **settings)  # type: ignore[arg-type]


def test_a_model_larger_than_memory_is_refused_before_it_is_built() -> None:
    config = make_config("llama", hidden_size=1 << 17, intermediate_size=1 << 19, head_dim=128)
    config.num_hidden_layers = 100
    with pytest.raises(OutOfMemoryError, match=r"need [\d.]+ GiB on cpu, [\d.]+ GiB are free"):
        load_model(config, None, "dummy")


def test_an_allocation_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(model: CausalLM, seed: int) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr("engine.loader.fill_randomly", fill)
    with pytest.raises(OutOfMemoryError, match="GiB on cpu"):
        load_model(make_config("llama"), None, "dummy")


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
