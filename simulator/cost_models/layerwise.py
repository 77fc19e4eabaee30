"""Step times from a layer-wise profile: one layer's parts measured under the serving engine.

Reads `<path>/tpN/dense.csv` (layer, tokens, time_us), `per_sequence.csv` (layer, sequences,
time_us), `attention.csv` (prefill_chunk, kv_prefill, n_decode, kv_decode, time_us) and, for a
mixture of experts, `moe.csv` (tokens, activated_experts, time_us). Counts of layers come from the
model, collectives from `interconnect.py`. It does not know the host's share of a step: a profile
holds GPU kernels only.

Token-wise times are interpolated linearly in tokens; attention corrects the analytic formula
(`attention_table.py`), so several chunks and unequal contexts keep their own shape.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.cost_models.attention import Attention, AttentionHeads, AttentionRoofline
from simulator.cost_models.attention_table import AttentionGrids, AttentionTable
from simulator.cost_models.cached_memory import CachedMemory
from simulator.cost_models.collectives import Collectives
from simulator.cost_models.experts import expert_load, time_elsewhere
from simulator.cost_models.grid import Array, CorrectionGrid, interpolate_line
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.cost_models.table_files import read_csv, read_names
from simulator.cost_models.table_identity import check_profile
from simulator.cost_models.transformer import (
    EXPERTS,
    LayerParts,
    Parts,
    Pieces,
    TransformerCostModel,
)
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

LAYER_COUNTS = {
    "layernorm": 2, "qkv_proj": 1, "qk_norm": 1, "rotary_emb": 1, "o_proj": 1,
    "gate_up_proj": 1, "act_fn": 1, "down_proj": 1,
}  # fmt: skip
EDGE_LAYERS = ("embedding", "final_layernorm")
HEAD_LAYERS = ("lm_head", "sampler")
_MLP = ("gate_up_proj", "act_fn", "down_proj")
_LISTED = 65_536  # counts whose times are kept ready


@dataclass(eq=False, repr=False)
class LayerwiseCostModel(TransformerCostModel):
    """Measured parts, measured attention, and analytic or measured collectives.

    Args:
        path: Folder of the profile, with one folder tpN for each tensor parallel size.
        allow_mismatch: Use the profile of another model or GPU.

    Raises:
        ConfigError: The profile is of another model, data type or GPU, or lacks a file, a column, a
            layer or the tensor parallel size.
    """

    path: str
    allow_mismatch: bool = False

    def _build(self, constants: KernelConstants) -> Pieces:
        model, hardware, parallel = self.model, self.hardware, self.parallel
        folder = _profile_folder(Path(self.path), parallel.tensor_parallel_size)
        if not self.allow_mismatch:
            check_profile(model, hardware.name, folder)
        heads = AttentionHeads.of(model, parallel)

        def formula(window: int | None) -> AttentionRoofline:
            return AttentionRoofline(heads, hardware, constants, window)

        names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
        chunk, kv_prefill, n_decode, kv_decode, time_us = read_csv(folder / "attention.csv", names)
        grids = AttentionGrids.measure(
            formula(model.sliding_window), chunk, kv_prefill, n_decode, kv_decode, time_us * 1e-6
        )

        def attention(window: int | None) -> Attention:
            return AttentionTable(formula(window), grids, model.sliding_window)

        collectives = Collectives(model, hardware, parallel, constants, self.all_reduce)
        parts = LayerwiseParts(model, parallel, folder, CachedMemory(hardware))
        return Pieces(parts, attention, collectives)


class LayerwiseParts(LayerParts):
    """Token-wise parts of one folder of a profile, interpolated.

    Args:
        model, parallel: What runs, and how it is divided.
        folder: With dense.csv, per_sequence.csv and, for a mixture of experts, moe.csv.
        memory: Prices the rows of experts on other GPUs, which are in no table.

    Raises:
        ConfigError: A file, a column or a layer that the model needs is missing.
    """

    def __init__(
        self, model: ModelConfig, parallel: ParallelConfig, folder: Path, memory: CachedMemory
    ) -> None:
        self._model = model
        self._dense = _read_lines(folder / "dense.csv", "tokens")
        self._heads = _read_lines(folder / "per_sequence.csv", "sequences")
        self._check_layers(folder)
        self._experts = None
        if model.num_moe_layers:
            self._experts = MeasuredExperts(model, parallel, folder, memory)
        self.largest_tokens = min(line.largest for line in self._dense.values())
        if self._experts is not None:
            self.largest_tokens = min(self.largest_tokens, self._experts.largest_tokens)
        self.largest_samples = min(line.largest for line in self._heads.values())

    def layer(self, num_tokens: int) -> Parts:
        moe_share = self._model.num_moe_layers / self._model.num_hidden_layers
        parts = {}
        for name, count in LAYER_COUNTS.items():
            if name in self._dense:
                share = 1.0 - moe_share if name in _MLP else 1.0
                parts[name] = share * count * self._dense[name](num_tokens)
        if self._experts is not None:
            parts[EXPERTS] = self.experts(num_tokens)
        return parts

    def experts(self, num_tokens: float) -> float:
        if self._experts is None:
            return 0.0
        share = self._model.num_moe_layers / self._model.num_hidden_layers
        return share * self._experts.time(num_tokens)

    def edge(self, num_tokens: int) -> Parts:
        present = [name for name in EDGE_LAYERS if name in self._dense]
        return {name: self._dense[name](num_tokens) for name in present}

    def head(self, num_samples: int) -> Parts:
        present = [name for name in HEAD_LAYERS if name in self._heads]
        return {name: self._heads[name](num_samples) for name in present}

    def _check_layers(self, folder: Path) -> None:
        needed = ["layernorm", "qkv_proj", "o_proj"]
        if self._model.num_moe_layers < self._model.num_hidden_layers:
            needed += _MLP
        missing = [name for name in needed if name not in self._dense]
        missing += [name for name in HEAD_LAYERS[:1] if name not in self._heads]
        if missing:
            raise ConfigError(
                f"profile {folder} lacks the layer {', '.join(missing)} that {self._model.name}"
                " needs: give the profile of this model"
            )


class MeasuredExperts:
    """Experts of one layer: the share of the tokens' assignments that one GPU computes.

    Args:
        model, parallel: What runs, and how it is divided.
        folder: Of one tensor parallel size; without moe.csv there, that of whole experts (tp1) is
            taken, and answers for a slice in proportion to its width.
        memory: Prices the rows whose experts are on other GPUs.

    Attributes:
        largest_tokens: Most tokens of a step that the table knows.
    """

    def __init__(
        self, model: ModelConfig, parallel: ParallelConfig, folder: Path, memory: CachedMemory
    ) -> None:
        self._model, self._parallel, self._memory = model, parallel, memory
        self._slices, file = 1.0, folder / "moe.csv"
        if file.is_file():
            self._slices = float(folder.name.removeprefix("tp") or 1)
        else:
            file = folder.parent / "tp1" / "moe.csv"
        names = ("tokens", "activated_experts", "time_us")
        tokens, activated, microseconds = read_csv(file, names)
        formula = np.array([_moe_formula(t, a) for t, a in zip(tokens, activated, strict=True)])
        points = np.stack([tokens, activated], axis=1)
        self._grid = CorrectionGrid(points, microseconds * 1e-6 / formula)
        of_one = expert_load(model, parallel, 1).assignments / model.num_experts_per_tok
        self.largest_tokens = self._grid.largest[0] / of_one

    def time(self, num_tokens: float) -> float:
        """Seconds for a step of `num_tokens` on every rank."""
        load = expert_load(self._model, self._parallel, num_tokens)
        tokens = load.assignments / self._model.num_experts_per_tok
        correction = self._grid(tokens, load.activated)
        here = load.width * self._slices * _moe_formula(tokens, load.activated) * correction
        return here + time_elsewhere(self._model, load, self._memory)


def _moe_formula(tokens: float, activated: float) -> float:
    """A smooth shape of the experts' time, in arbitrary units, that the grid corrects."""
    return 4.0 + activated + tokens / 32.0


def _profile_folder(path: Path, ranks: int) -> Path:
    folder = path if path.name == f"tp{ranks}" else path / f"tp{ranks}"
    if folder.is_dir():
        return folder
    if not path.is_dir():
        raise ConfigError(f"profile {path} does not exist: give a folder with tp1/dense.csv etc.")
    have = sorted(entry.name for entry in path.glob("tp*") if entry.is_dir())
    raise ConfigError(
        f"profile {path} has no tensor_parallel_size={ranks} (have {', '.join(have) or 'none'}):"
        " choose one of them or use cost_model=roofline"
    )


class _Line:
    """Seconds of one part for every count up to the largest measured one, and beyond."""

    def __init__(self, counts: Array, seconds: Array) -> None:
        self._counts, self._seconds = counts, seconds
        self.largest = float(counts[-1])
        at = np.arange(min(int(self.largest), _LISTED) + 1, dtype=np.float64)
        self._every: list[float] = np.interp(at, counts, seconds).tolist()

    def __call__(self, count: int) -> float:
        if count < len(self._every):
            return self._every[count]
        return float(interpolate_line([count], self._counts, self._seconds)[0])


def _read_lines(file: Path, axis: str) -> dict[str, _Line]:
    """A line for every layer of the file."""
    counts, microseconds = read_csv(file, (axis, "time_us"))
    layers = read_names(file, "layer")
    lines = {}
    for name in dict.fromkeys(layers):
        rows = np.array([layer == name for layer in layers])
        xs, place = np.unique(counts[rows], return_inverse=True)
        seconds = np.bincount(place, microseconds[rows]) / np.bincount(place) * 1e-6
        lines[name] = _Line(xs, seconds)
    return lines
