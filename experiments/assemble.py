"""From a composed config to a simulation that is ready to run.

Knows which group of the config becomes which argument, and what follows from several groups
together: KV blocks from the model, the hardware and the cache settings. Every object is built here
and nowhere else, so that a config is checked as a whole before the first simulated event.
"""

from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from experiments.instantiate import build, factory, parameter_names
from experiments.schema import settings
from simulator.hardware import GIB, HardwareConfig
from simulator.memory import num_kv_blocks
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from simulator.simulation import ClusterConfig, Policies, Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.metrics import SLO

FCFS_QUEUE = "workbench.scheduler.request_queue.FCFSQueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """Everything that a run consists of, apart from its workload and the simulation itself."""

    config: DictConfig
    model: ModelConfig
    hardware: HardwareConfig
    parallel: ParallelConfig
    cluster: ClusterConfig
    scheduler: SchedulerConfig
    cache: CacheConfig
    slo: SLO
    cost_model: Any
    num_kv_blocks: int
    num_host_blocks: int

    @classmethod
    def from_config(cls, config: DictConfig) -> "Assembly":
        """Builds and checks all parts. Raises WorkbenchError subclasses."""
        model: ModelConfig = build(config.model, "model")
        hardware: HardwareConfig = build(config.hardware, "hardware")
        parallel: ParallelConfig = settings(config, "parallel")
        scheduler = _scheduler_config(config, model)
        cache = _cache_config(config, model)
        _check_pairing(config, scheduler)
        return cls(
            config=config,
            model=model,
            hardware=hardware,
            parallel=parallel,
            cluster=settings(config, "cluster"),
            scheduler=scheduler,
            cache=cache,
            slo=settings(config, "slo"),
            cost_model=_cost_model(config, model, hardware, parallel),
            num_kv_blocks=_num_kv_blocks(model, hardware, parallel, scheduler, cache),
            num_host_blocks=_num_host_blocks(model, parallel, scheduler, cache),
        )

    def simulation(self) -> Simulation:
        """A fresh simulation: its workload is read or drawn, its policies are new objects."""
        config = self.config
        return Simulation(
            workload=build(config.workload, "workload"),
            scheduler_config=self.scheduler,
            cache_config=self.cache,
            cluster_config=self.cluster,
            num_blocks=self.num_kv_blocks,
            num_host_blocks=self.num_host_blocks,
            pipeline_parallel_size=self.parallel.pipeline_parallel_size,
            cost_model=self.cost_model,
            router=build(config.router, "router"),
            policies=Policies(
                queue=factory(config.queue, "queue"),
                batch_policy=factory(config.batch_policy, "batch_policy"),
                victim_policy=factory(config.victim, "victim"),
                eviction=factory(config.eviction, "eviction"),
            ),
            seed=config.seed,
        )


def _scheduler_config(config: DictConfig, model: ModelConfig) -> SchedulerConfig:
    """The scheduler's settings; `max_model_len` is the model's own where none is given."""
    scheduler: SchedulerConfig = settings(config, "scheduler")
    limit = model.max_position_embeddings
    if scheduler.max_model_len is None:
        return replace(scheduler, max_model_len=limit)
    if scheduler.max_model_len > limit:
        raise ConfigError(
            f"scheduler.max_model_len={scheduler.max_model_len} exceeds the {limit} positions of "
            f"{model.name}: lower it, or leave it null for the model's own"
        )
    return scheduler


def _cache_config(config: DictConfig, model: ModelConfig) -> CacheConfig:
    """The cache's settings; the attention window is the model's own where none is given."""
    cache: CacheConfig = settings(config, "cache")
    if cache.sliding_window is None and cache.hybrid_window is None and model.sliding_window:
        return replace(cache, sliding_window=model.sliding_window)
    return cache


def _check_pairing(config: DictConfig, scheduler: SchedulerConfig) -> None:
    if scheduler.policy == "priority" and config.queue.get("_target_") == FCFS_QUEUE:
        raise ConfigError(
            "scheduler.policy=priority contradicts queue=fcfs: "
            "choose scheduler=priority, or name queue=priority victim=lowest_priority beside it"
        )


def _cost_model(
    config: DictConfig, model: ModelConfig, hardware: HardwareConfig, parallel: ParallelConfig
) -> Any:
    """The cost model, given those of the three descriptions that it asks for."""
    wanted = parameter_names(str(config.cost_model.get("_target_")))
    offered = {"model": model, "hardware": hardware, "parallel": parallel}
    given = {name: value for name, value in offered.items() if name in wanted}
    return build(config.cost_model, "cost_model", **given)


def _num_kv_blocks(
    model: ModelConfig,
    hardware: HardwareConfig,
    parallel: ParallelConfig,
    scheduler: SchedulerConfig,
    cache: CacheConfig,
) -> int:
    if cache.num_gpu_blocks_override is not None:
        return cache.num_gpu_blocks_override
    return num_kv_blocks(
        model,
        hardware,
        parallel,
        cache.block_size,
        cache.gpu_memory_utilization,
        scheduler.max_num_batched_tokens,
        scheduler.max_num_seqs,
    )


def _num_host_blocks(
    model: ModelConfig, parallel: ParallelConfig, scheduler: SchedulerConfig, cache: CacheConfig
) -> int:
    """Blocks that the host memory of one GPU's share holds; none unless victims are swapped."""
    if scheduler.preemption_mode != "swap":
        return 0
    return int(
        cache.swap_space_gib * GIB // (model.kv_bytes_per_token(parallel) * cache.block_size)
    )
