"""Step times from tables of single kernels, measured apart from any model.

Reads `<path>/<kind>/<framework>/<version>/*.parquet` for the kinds gemm (m, n, k, latency in ms),
attention (context: batch_size, isl; generation: batch_size, step; num_heads, num_key_value_heads,
head_dim) and comm (custom all-reduce). A table corrects the analytic formula of `roofline.py`, so
products and head counts that lie between measured ones are priced too. It does not know norms and
activations, experts' grouped products or the host: those stay analytic.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulator.cost_models.attention import Attention, AttentionHeads, AttentionRoofline
from simulator.cost_models.collectives import Collectives
from simulator.cost_models.grid import CorrectionGrid
from simulator.cost_models.kernel_attention import (
    KernelAttention,
    context_grid,
    generation_grid,
)
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.cost_models.roofline import Kernels, RooflineParts
from simulator.cost_models.table_files import read_parquet, read_times
from simulator.cost_models.table_identity import check_gpu
from simulator.cost_models.transformer import Pieces, TransformerCostModel
from simulator.hardware import HardwareConfig
from workbench.errors import ConfigError


class MeasuredProducts(Kernels):
    """Analytic kernels with matrix products corrected by a table of (m, n, k)."""

    def __init__(
        self, hardware: HardwareConfig, constants: KernelConstants, dtype: str, file: Path
    ) -> None:
        super().__init__(hardware, constants, dtype)
        frame = read_parquet(file, ("gemm_dtype", "m", "n", "k", "latency"))
        wanted = "fp8" if dtype == "fp8" else "bfloat16"
        frame = frame[(frame["gemm_dtype"] == wanted) & (frame["n"] >= 128) & (frame["k"] >= 128)]
        if frame.empty:
            raise ConfigError(f"kernel table {file} has no {wanted} products: use model.dtype=auto")
        frame = frame.assign(seconds=read_times(frame, file))
        frame = frame.groupby(["m", "n", "k"], as_index=False)["seconds"].mean()
        points = frame[["m", "n", "k"]].to_numpy(dtype=np.float64)
        formula = np.array([super(MeasuredProducts, self).gemm(*point) for point in points])
        seconds = frame["seconds"].to_numpy(dtype=np.float64)
        self.grid = CorrectionGrid(points, seconds / formula)

    def gemm(self, m: float, n: float, k: float) -> float:
        return super().gemm(m, n, k) * self.grid(m, n, k)


@dataclass(eq=False, repr=False)
class KernelTableCostModel(TransformerCostModel):
    """Analytic kernels, attention and collectives, each corrected by a table of kernels.

    Args:
        path: Folder of one system's tables.
        framework: Whose kernels.
        version: Of the framework; None takes the newest of every kind.
        all_reduce: File of measured all-reduce times; None takes the tables' own.
        allow_mismatch: Use the tables of another GPU.

    Raises:
        ConfigError: A table is missing, lacks a column or the data type, or is of another GPU.
    """

    path: str
    framework: str = "vllm"
    version: str | None = None
    allow_mismatch: bool = False

    def _build(self, constants: KernelConstants) -> Pieces:
        model, hardware, parallel = self.model, self.hardware, self.parallel
        heads = AttentionHeads.of(model, parallel)
        gemm = self._find("gemm", "gemm_perf")
        products = MeasuredProducts(hardware, constants, model.dtype, gemm)
        if not self.allow_mismatch:
            check_gpu(hardware.name, [_device(gemm)], gemm)
        parts = RooflineParts(model, parallel, products)
        parts.largest_tokens = products.grid.largest[0]

        def formula(of: AttentionHeads, window: int | None = None) -> AttentionRoofline:
            return AttentionRoofline(of, hardware, constants, window)

        context = context_grid(self._find("attention", "context_attention_perf"), heads, formula)
        generation = generation_grid(
            self._find("attention", "generation_attention_perf"), heads, formula
        )

        def attention(window: int | None) -> Attention:
            return KernelAttention(formula(heads, window), context, generation)

        all_reduce = self.all_reduce
        if all_reduce is None and parallel.tensor_parallel_size > 1:
            comm = self._find("comm", "custom_allreduce_perf", needed=False)
            all_reduce = None if comm is None else str(comm)
        return Pieces(
            parts, attention, Collectives(model, hardware, parallel, constants, all_reduce)
        )

    def _find(self, kind: str, name: str, needed: bool = True) -> Any:
        """The table of the wanted, or else the newest, version; None if it is not needed."""
        root = Path(self.path)
        if not root.is_dir():
            raise ConfigError(f"kernel tables {root} do not exist: give the folder of one system")
        version = self.version or "*"
        files = sorted(
            (root / kind / self.framework).glob(f"{version}/{name}.parquet"),
            key=lambda file: [
                int(part) if part.isdigit() else 0 for part in file.parent.name.split(".")
            ],
        )
        if files:
            return files[-1]
        if not needed:
            return None
        raise ConfigError(
            f"kernel tables {root} lack {kind}/{self.framework}/{version}/{name}.parquet:"
            " give the folder of one system, or another framework or version"
        )


def _device(file: Path) -> str:
    """The GPU that a table names; empty if it names none."""
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(file)
    if "device" not in schema.names:
        return ""
    names = pyarrow.parquet.read_table(file, columns=["device"]).column("device").unique()
    return str(names[0].as_py()) if len(names) else ""
