"""Step times from tables of single kernels, measured apart from any model.

Reads `<path>/<kind>/<framework>/<version>/*.parquet` for the kinds gemm (m, n, k, latency in ms),
attention (context: batch_size, isl; generation: batch_size, step; num_heads, num_key_value_heads,
head_dim) and comm (custom all-reduce). A table corrects the analytic formula of `roofline.py`, so
products and head counts that lie between measured ones are priced too. It does not know norms and
activations, experts' grouped products or the host: those stay analytic.
"""

from collections.abc import Mapping, Sequence
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.cost_models.attention import AttentionRoofline
from simulator.cost_models.base import refuse_far
from simulator.cost_models.grid import CorrectionGrid
from simulator.cost_models.kernel_constants import KernelConstants, constants_for
from simulator.cost_models.roofline import RooflineCostModel, RooflineParts
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

_CURE = "shorten the requests (scheduler.max_model_len) or use cost_model=roofline"


class MeasuredProducts(RooflineParts):
    """Analytic kernels with matrix products corrected by a table of (m, n, k)."""

    def __init__(
        self, hardware: HardwareConfig, constants: KernelConstants, dtype: str, file: Path
    ) -> None:
        super().__init__(hardware, constants, dtype)
        frame = _read(file, ("gemm_dtype", "m", "n", "k", "latency"))
        wanted = "fp8" if dtype == "fp8" else "bfloat16"
        frame = frame[(frame["gemm_dtype"] == wanted) & (frame["n"] >= 128) & (frame["k"] >= 128)]
        if frame.empty:
            raise ConfigError(f"kernel table {file} has no {wanted} products: use model.dtype=auto")
        frame = frame.groupby(["m", "n", "k"], as_index=False)["latency"].mean()
        points = frame[["m", "n", "k"]].to_numpy(dtype=np.float64)
        formula = np.array([super(MeasuredProducts, self).gemm(*point) for point in points])
        seconds = frame["latency"].to_numpy(dtype=np.float64) * 1e-3
        self.grid = CorrectionGrid(points, seconds / formula)

    def gemm(self, m: float, n: float, k: float) -> float:
        return super().gemm(m, n, k) * self.grid(m, n, k)


class KernelTableCostModel(RooflineCostModel):
    """Analytic step times with products, attention and all-reduce corrected by kernel tables.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        path: Folder of one system's tables.
        framework: Whose kernels.
        version: Of the framework; None takes the newest of every kind.
        constants, host_overhead_s, host_overhead_per_request_s, block_size: As in roofline.
        all_reduce: File of measured all-reduce times; None takes the tables' own.

    Raises:
        ConfigError: A table is missing, or lacks a column or the data type.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        path: str,
        framework: str = "vllm",
        version: str | None = None,
        constants: Mapping[str, Any] | KernelConstants | None = None,
        host_overhead_s: float = 0.0,
        host_overhead_per_request_s: float = 0.0,
        block_size: int = 16,
        all_reduce: str | None = None,
    ) -> None:
        chosen = constants_for(hardware.name, constants)
        root = Path(path)
        if all_reduce is None and parallel.tensor_parallel_size > 1:
            comm = _find(root, "comm", framework, version, "custom_allreduce_perf.parquet", False)
            all_reduce = None if comm is None else str(comm)
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
        file = _find(root, "gemm", framework, version, "gemm_perf.parquet")
        products = MeasuredProducts(hardware, chosen, model.dtype, file)
        self._kernels = products
        self._largest_tokens = products.grid.largest[0]
        self._formula = AttentionRoofline(model, hardware, parallel, chosen)
        heads = model.num_attention_heads // parallel.tensor_parallel_size
        shape = (heads, model.kv_heads_per_rank(parallel), model.head_dim)
        kv_dtype = "fp8" if model.kv_cache_dtype == "fp8" else "bfloat16"
        self._context, self._generation = (
            self._attention_grid(
                _find(root, "attention", framework, version, f"{kind}_attention_perf.parquet"),
                kind,
                shape,
                kv_dtype,
            )
            for kind in ("context", "generation")
        )
        self.attention = self._attention  # type: ignore[method-assign]

    def _attention(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        formula = self._formula
        seconds = 0.0
        if num_decodes:
            mean = decode_context / num_decodes
            if not self._generation.is_inside(num_decodes, mean):
                self._note(self._generation, "decode", num_decodes, mean)
            seconds = formula.latency + formula.decode(num_decodes, decode_context)
            seconds *= self._generation(num_decodes, mean)
        if prefills:
            mean = sum(query + context for query, context in prefills) / len(prefills)
            if not self._context.is_inside(len(prefills), mean):
                self._note(self._context, "prompt", len(prefills), mean)
            prompt = formula.latency + formula.prefill(prefills)
            seconds += prompt * self._context(len(prefills), mean)
        return seconds

    def _note(self, grid: CorrectionGrid, what: str, rows: int, mean: float) -> None:
        self._outside = True
        refuse_far(f"a number of {what} rows", rows, grid.largest[0], _CURE)
        refuse_far(f"a mean {what} length", mean, grid.largest[1], _CURE)

    def _attention_grid(
        self, file: Path, kind: str, shape: tuple[int, int, int], kv_dtype: str
    ) -> CorrectionGrid:
        """Corrections over (rows, tokens of a row), at the measured head counts nearest to ours."""
        columns = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim")
        frame = _read(file, (*columns, "kv_cache_dtype", "latency"))
        frame = frame[frame["kv_cache_dtype"] == kv_dtype]
        if "window_size" in frame:
            frame = frame[frame["window_size"] == 0]
        frame = _nearest_heads(frame, shape)
        if frame.empty:
            raise ConfigError(
                f"kernel table {file} has no {kv_dtype} rows: set kv_cache_dtype=auto"
            )
        heads, kv_heads, head_dim = (
            int(frame[name].iloc[0]) for name in ("num_heads", "num_key_value_heads", "head_dim")
        )
        formula = AttentionRoofline(
            _attention_model(heads, kv_heads, head_dim, kv_dtype),
            self.hardware,
            ParallelConfig(),
            self.constants,
        )
        rows = frame["batch_size"].to_numpy(dtype=np.float64)
        if kind == "context":
            tokens = frame["isl"].to_numpy(dtype=np.float64)
            predicted = [
                formula.time(0, 0, [(int(q), 0)] * int(n))
                for n, q in zip(rows, tokens, strict=True)
            ]
        else:
            tokens = frame["step"].to_numpy(dtype=np.float64) + 1
            predicted = [
                formula.time(int(n), int(n * c), []) for n, c in zip(rows, tokens, strict=True)
            ]
        seconds = frame["latency"].to_numpy(dtype=np.float64) * 1e-3
        return CorrectionGrid(np.stack([rows, tokens], axis=1), seconds / np.asarray(predicted))


def _attention_model(heads: int, kv_heads: int, head_dim: int, kv_dtype: str) -> ModelConfig:
    return ModelConfig(
        name="kernel table",
        num_hidden_layers=1,
        hidden_size=heads * head_dim,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=1,
        vocab_size=1,
        kv_cache_dtype=kv_dtype,
    )


def _nearest_heads(frame: "pd.DataFrame", shape: tuple[int, int, int]) -> "pd.DataFrame":
    """Rows of the one measured (heads, kv heads, head size) that is closest in ratio."""
    names = ["num_heads", "num_key_value_heads", "head_dim"]
    known = frame[names].drop_duplicates()
    # heads of a group that do not divide cannot be a model
    known = known[known["num_heads"] % known["num_key_value_heads"] == 0]
    if known.empty:
        return frame.iloc[:0]

    def distance(row: tuple[int, ...]) -> float:
        return sum(abs(log2(value / wanted)) for value, wanted in zip(row, shape, strict=True))

    best = min(known.itertuples(index=False, name=None), key=distance)
    rows = np.ones(len(frame), dtype=bool)
    for name, value in zip(names, best, strict=True):
        rows &= (frame[name] == value).to_numpy()
    return frame[rows]


def _find(
    root: Path, kind: str, framework: str, version: str | None, name: str, needed: bool = True
) -> Any:
    """The table of the wanted, or else the newest, version; None if it is not needed."""
    if not root.is_dir():
        raise ConfigError(f"kernel tables {root} do not exist: give the folder of one system")
    files = sorted(
        (root / kind / framework).glob(f"{version or '*'}/{name}"),
        key=lambda file: [
            int(part) if part.isdigit() else 0 for part in file.parent.name.split(".")
        ],
    )
    if files:
        return files[-1]
    if not needed:
        return None
    raise ConfigError(
        f"kernel tables {root} lack {kind}/{framework}/{version or '*'}/{name}:"
        " give the folder of one system, or another framework or version"
    )


def _read(file: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.read_parquet(file)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"kernel table {file} lacks the column {', '.join(missing)}")
    return frame
