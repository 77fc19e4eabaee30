"""Simulates closed-loop operating points, several at once.

Knows how a point becomes a simulation. What the table of points says and what is reported, the
files beside this one know.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.measured.points import SHORTEST, Point
from experiments.measured.prices import KERNELS, all_reduce_table, gpu_of
from experiments.measured.settings import SiliconSettings
from experiments.measured.system import LARGEST_GRAPH, hardware_option, model_named
from experiments.tables import requests_frame
from simulator.cost_models.base import CostModel
from simulator.cost_models.kernel_tables import KernelTableCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.hardware import HardwareConfig
from simulator.memory import num_kv_blocks
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from simulator.simulation import Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.router import RoundRobin

MAX_NUM_SEQS = 512  # more than the users of any point
KV_DTYPE = "bfloat16"  # vLLM's own choice, with fp8 weights too


@dataclass(frozen=True, slots=True)
class Outcome:
    """The simulated means of one point, and what the prices rest on.

    Attributes:
        ttft_ms, tpot_ms: Simulated means.
        prices_from: Source of the prices.
        least_tpot_ms: What the point's GPUs need to read the weights and the keys and values of all
            its users once, at the full rate of their memory.
    """

    point: Point
    ttft_ms: float
    tpot_ms: float
    prices_from: str
    least_tpot_ms: float

    @property
    def ttft_error(self) -> float:
        return self.ttft_ms / self.point.ttft_ms - 1

    @property
    def tpot_error(self) -> float:
        return self.tpot_ms / self.point.tpot_ms - 1

    @property
    def is_possible(self) -> bool:
        """Whether one such server can have served so many users at the measured pace."""
        return self.point.tpot_ms >= self.least_tpot_ms


def simulate_points(points: Sequence[Point], settings: SiliconSettings) -> Iterator[Outcome]:
    """The outcome of every point, in their order.

    Raises:
        ConfigError: A model or a GPU that is not known.
    """
    for point in points:
        _parts_of(point)  # what is not known is told before anything runs
    jobs = settings.jobs or os.cpu_count() or 1
    if jobs == 1 or len(points) == 1:
        yield from (simulate_point(point, settings) for point in points)
        return
    with ProcessPoolExecutor(max_workers=min(jobs, len(points))) as pool:
        yield from pool.map(simulate_point, points, [settings] * len(points))


def simulate_point(point: Point, settings: SiliconSettings) -> Outcome:
    """Simulate one point."""
    model, hardware, parallel = _parts_of(point)
    cost_model, source = _cost_model(
        point.model,
        point.system,
        point.tensor_parallel_size,
        point.precision,
        point.version,
        settings,
    )
    scheduler = SchedulerConfig(
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=point.token_budget,
        max_model_len=model.max_position_embeddings,
    )
    cache = CacheConfig(enable_prefix_caching=False)
    simulation = Simulation(
        workload=point.workload(settings.requests_per_user, settings.seed),
        scheduler_config=scheduler,
        cache_config=cache,
        num_blocks=num_kv_blocks(model, hardware, parallel, scheduler, cache),
        cost_model=cost_model,
        router=RoundRobin(),
    )
    requests = requests_frame(simulation.run().records)
    return Outcome(
        point,
        float(1e3 * requests["ttft_s"].mean()),
        float(1e3 * requests["tpot_s"].mean()),
        source,
        1e3 * _least_step_time(point, model, hardware, parallel),
    )


def _least_step_time(
    point: Point, model: ModelConfig, hardware: HardwareConfig, parallel: ParallelConfig
) -> float:
    """Seconds to read weights and the mean contexts of all users from memory once."""
    shortest = 1.0 if point.exact else SHORTEST
    keys = point.users * shortest * (point.isl + 0.5 * point.osl)
    read = model.weight_bytes(parallel) + keys * model.kv_bytes_per_token(parallel)
    return read / hardware.memory_bandwidth


def _parts_of(point: Point) -> tuple[ModelConfig, HardwareConfig, ParallelConfig]:
    model = model_named(point.model, point.precision, KV_DTYPE)
    parallel = ParallelConfig(tensor_parallel_size=point.tensor_parallel_size)
    model.check_parallel(parallel)
    return model, hardware_option(gpu_of(point.system)), parallel


@lru_cache(maxsize=16)
def _cost_model(
    model: str, system: str, ranks: int, precision: str, version: str, settings: SiliconSettings
) -> tuple[CostModel, str]:
    """The cost model of a server, kept for its other points."""
    tables = Path(settings.profiles_dir) / KERNELS / system
    comm = all_reduce_table(tables, version or "0.14.0") if ranks > 1 else None
    parts: dict[str, Any] = {
        "model": model_named(model, precision, KV_DTYPE),
        "hardware": hardware_option(gpu_of(system)),
        "parallel": ParallelConfig(tensor_parallel_size=ranks),
        "host_overhead_s": settings.host_overhead_s,
        "host_overhead_per_request_s": settings.host_overhead_per_request_s,
        "captured_tokens": LARGEST_GRAPH,
        "all_reduce": None if comm is None else str(comm),
    }
    if tables.is_dir():
        return KernelTableCostModel(**parts, path=str(tables)), "kernel tables"
    return RooflineCostModel(**parts), "formulas"
