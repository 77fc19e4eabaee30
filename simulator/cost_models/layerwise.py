"""Step times from a layer-wise profile: one layer's parts measured under the serving engine.

Reads `<path>/tpN/dense.csv` (layer, tokens, time_us), `per_sequence.csv` (layer, sequences,
time_us), `attention.csv` (prefill_chunk, kv_prefill, n_decode, kv_decode, time_us) and, for a
mixture of experts, `moe.csv` (tokens, activated_experts, time_us). Counts of layers come from the
model, collectives from `interconnect.py`. It does not know the host's share of a step: a profile
holds GPU kernels only.

Token-wise times are interpolated linearly in tokens; attention corrects the analytic formula
(`attention_table.py`), so several chunks and unequal contexts keep their own shape.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.cost_models.attention import AttentionRoofline
from simulator.cost_models.attention_table import AttentionTable
from simulator.cost_models.base import refuse_far
from simulator.cost_models.grid import Array, CorrectionGrid, interpolate_line
from simulator.cost_models.kernel_constants import KernelConstants, constants_for
from simulator.cost_models.transformer import Parts, TransformerCostModel
from simulator.hardware import HardwareConfig
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


class LayerwiseCostModel(TransformerCostModel):
    """Interpolates a layer-wise profile.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        path: Folder of the profile, with one folder tpN for each tensor parallel size.
        constants: Replacements for the formula's constants.
        host_overhead_s, host_overhead_per_request_s: Seconds a step (and a row) of the host.
        block_size: Tokens a KV block, for swaps.
        all_reduce: File of measured all-reduce times; None: the analytic model.

    Raises:
        ConfigError: The profile lacks a file, a column, a layer or the tensor parallel size.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        path: str,
        constants: Mapping[str, Any] | KernelConstants | None = None,
        host_overhead_s: float = 0.0,
        host_overhead_per_request_s: float = 0.0,
        block_size: int = 16,
        all_reduce: str | None = None,
    ) -> None:
        chosen = constants_for(hardware.name, constants)
        super().__init__(
            model,
            hardware,
            parallel,
            chosen,
            host_overhead_s,
            host_overhead_per_request_s,
            block_size,
            all_reduce,
        )
        folder = _profile_folder(Path(path), parallel.tensor_parallel_size)
        self._dense = _read_lines(folder / "dense.csv", "tokens")
        self._heads = _read_lines(folder / "per_sequence.csv", "sequences")
        self._check_layers(folder)
        self._largest_tokens = min(line.largest for line in self._dense.values())
        self._largest_samples = min(line.largest for line in self._heads.values())
        columns = _read_csv(
            folder / "attention.csv",
            ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
        )
        formula = AttentionRoofline(model, hardware, parallel, chosen)
        *axes, microseconds = columns
        self._attention = AttentionTable(
            formula, axes[0], axes[1], axes[2], axes[3], microseconds * 1e-6
        )
        self._moe_grid, self._moe_folder = None, folder
        if model.num_moe_layers:
            self._moe_grid, self._moe_share = _read_moe(folder)

    def attention(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        seconds = self._attention.time(num_decodes, decode_context, prefills)
        if self._attention.outside:
            self._outside, self._attention.outside = True, False
        return seconds

    def layer_parts(self, num_tokens: int) -> Parts:
        moe_share = self.model.num_moe_layers / self.model.num_hidden_layers
        parts = {}
        for name, count in LAYER_COUNTS.items():
            if name in self._dense:
                share = 1.0 - moe_share if name in _MLP else 1.0
                parts[name] = share * count * self._line(self._dense, name, num_tokens)
        if moe_share:
            parts["moe"] = moe_share * self._moe(num_tokens)
        return parts

    def edge_parts(self, num_tokens: int) -> Parts:
        present = [name for name in EDGE_LAYERS if name in self._dense]
        return {name: self._line(self._dense, name, num_tokens) for name in present}

    def head_parts(self, num_samples: int) -> Parts:
        if not num_samples:
            return {}
        present = [name for name in HEAD_LAYERS if name in self._heads]
        return {name: self._line(self._heads, name, num_samples) for name in present}

    @staticmethod
    def _line(lines: dict[str, "_Line"], name: str, at: int) -> float:
        line = lines[name]
        return line.every[at] if at < len(line.every) else line.beyond(at)

    def _moe(self, num_tokens: int) -> float:
        """Experts of one layer: the share of the tokens' assignments that this GPU computes."""
        assert self._moe_grid is not None
        assignments, activated, width = self.experts_on_rank(num_tokens)
        tokens = assignments / self.model.num_experts_per_tok
        largest = self._moe_grid.largest[0]
        if tokens > largest:
            cure = "lower scheduler.max_num_batched_tokens or use cost_model=roofline"
            refuse_far("tokens of the experts", tokens, largest, cure)
            self._largest_tokens = min(self._largest_tokens, float(num_tokens - 1))
        # a table of whole experts answers for a slice in proportion to its width
        scale = width * self._moe_share
        return scale * _moe_formula(tokens, activated) * self._moe_grid(tokens, activated)

    def _check_layers(self, folder: Path) -> None:
        needed = ["layernorm", "qkv_proj", "o_proj"]
        if self.model.num_moe_layers < self.model.num_hidden_layers:
            needed += _MLP
        missing = [name for name in needed if name not in self._dense]
        missing += [name for name in HEAD_LAYERS[:1] if name not in self._heads]
        if missing:
            raise ConfigError(
                f"profile {folder} lacks the layer {', '.join(missing)} that {self.model.name}"
                " needs: give the profile of this model"
            )


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


def _read_csv(file: Path, columns: tuple[str, ...]) -> list[Array]:
    """Columns of numbers from a CSV file; text columns are not asked for."""
    import pandas as pd

    if not file.is_file():
        raise ConfigError(f"profile file {file} does not exist: give a complete profile folder")
    frame = pd.read_csv(file)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"profile file {file} lacks the column {', '.join(missing)}")
    if frame.empty:
        raise ConfigError(f"profile file {file} is empty: give a complete profile folder")
    try:
        return [frame[name].to_numpy(dtype=np.float64) for name in columns]
    except ValueError as error:
        raise ConfigError(f"profile file {file} holds a value that is no number: {error}") from None


class _Line:
    """Seconds of one part for every count up to the largest measured one, and beyond."""

    def __init__(self, counts: Array, seconds: Array) -> None:
        self._counts, self._seconds = counts, seconds
        self.largest = float(counts[-1])
        at = np.arange(int(self.largest) + 1, dtype=np.float64)
        self.every: list[float] = np.interp(at, counts, seconds).tolist()

    def beyond(self, count: int) -> float:
        return float(interpolate_line([count], self._counts, self._seconds)[0])


def _read_lines(file: Path, axis: str) -> dict[str, _Line]:
    """A line for every layer of the file."""
    import pandas as pd

    counts, microseconds = _read_csv(file, (axis, "time_us"))
    layers = pd.read_csv(file, usecols=["layer"])["layer"].to_numpy(dtype=object)
    lines = {}
    for name in dict.fromkeys(layers.tolist()):
        rows = layers == name
        xs, place = np.unique(counts[rows], return_inverse=True)
        seconds = np.bincount(place, microseconds[rows]) / np.bincount(place) * 1e-6
        lines[str(name)] = _Line(xs, seconds)
    return lines


def _read_moe(folder: Path) -> tuple[CorrectionGrid, float]:
    """The experts' grid, of this tensor parallel size or else of whole experts (tp1).

    Returns:
        (grid of seconds over the formula, factor from a GPU's share of an expert's width to the
        table's)
    """
    ranks, file = 1, folder / "moe.csv"
    if file.is_file():
        ranks = int(folder.name.removeprefix("tp") or 1)
    else:
        file = folder.parent / "tp1" / "moe.csv"
    tokens, activated, microseconds = _read_csv(file, ("tokens", "activated_experts", "time_us"))
    formula = np.array([_moe_formula(t, a) for t, a in zip(tokens, activated, strict=True)])
    grid = CorrectionGrid(np.stack([tokens, activated], axis=1), microseconds * 1e-6 / formula)
    return grid, float(ranks)
