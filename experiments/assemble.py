"""From a composed config to a simulation that is ready to run.

Knows which group of the config becomes which argument, and what follows from several groups
together: KV blocks from the model, the hardware and the cache settings. Every object is built here
and nowhere else, so that a config is checked as a whole before the first simulated event.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from experiments.backend import Backend
from experiments.budget import check_size, notes, scheduler_config
from experiments.instantiate import build, factory, parameter_names
from experiments.schema import naming_groups, settings
from simulator.cost_models.base import CostModel
from simulator.hardware import GIB, HardwareConfig
from simulator.memory import block_bytes, num_kv_blocks, num_kv_groups
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from simulator.simulation import ClusterConfig, Policies, Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.metrics import SLO
from workbench.router import Router
from workbench.scheduler.batch_policy import BatchPolicy
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.request_queue import RequestQueue
from workbench.workload.base import Workload

FCFS_QUEUE = "workbench.scheduler.request_queue.FCFSQueue"
# what the class must be that a group names in `_target_`
KINDS: dict[str, type] = {
    "model": ModelConfig,
    "hardware": HardwareConfig,
    "cost_model": CostModel,
    "workload": Workload,
    "router": Router,
    "queue": RequestQueue,
    "batch_policy": BatchPolicy,
    "victim": VictimPolicy,
    "eviction": EvictionPolicy,
    "backend": Backend,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """Everything that a run consists of, apart from its workload and the simulation itself.

    `notes` tells, a line each, what was decided for the user and is not to be seen in the config.
    """

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
    notes: list[str]

    @classmethod
    def from_config(cls, config: DictConfig) -> "Assembly":
        """Builds and checks all parts. Raises WorkbenchError subclasses."""
        model: ModelConfig = part(config, "model")
        hardware: HardwareConfig = part(config, "hardware")
        parallel: ParallelConfig = settings(config, "parallel")
        cluster: ClusterConfig = settings(config, "cluster")
        policy: BatchPolicy = part(config, "batch_policy")
        scheduler = scheduler_config(config, model, policy)
        cache = _cache_config(config, model)
        check_pairing(config, scheduler)
        kv_blocks = num_kv_blocks(model, hardware, parallel, scheduler, cache)
        host_blocks = _num_host_blocks(model, parallel, scheduler, cache)
        check_size(cluster.replicas, kv_blocks, host_blocks)
        return cls(
            config=config,
            model=model,
            hardware=hardware,
            parallel=parallel,
            cluster=cluster,
            scheduler=scheduler,
            cache=cache,
            slo=settings(config, "slo"),
            cost_model=_cost_model(config, model, hardware, parallel),
            num_kv_blocks=kv_blocks,
            num_host_blocks=host_blocks,
            notes=notes(config, scheduler, policy),
        )

    @property
    def activity(self) -> str:
        """What a run of it does."""
        return "simulation"

    @property
    def facts(self) -> dict[str, Any]:
        """What a result's provenance says of this world."""
        return {"backend": "simulator"}

    def start(self, workload: Workload | None = None) -> Simulation:
        """A fresh simulation: its workload is read or drawn, its policies are new objects.

        Args:
            workload: To be served instead of the config's.
        """
        config = self.config
        with naming_groups("scheduler", "cache"):
            return Simulation(
                workload=part(config, "workload") if workload is None else workload,
                scheduler_config=self.scheduler,
                cache_config=self.cache,
                cluster_config=self.cluster,
                num_blocks=self.num_kv_blocks,
                num_host_blocks=self.num_host_blocks,
                pipeline_parallel_size=self.parallel.pipeline_parallel_size,
                cost_model=self.cost_model,
                router=part(config, "router"),
                policies=Policies(
                    queue=_each(config, "queue"),
                    batch_policy=_each(config, "batch_policy"),
                    victim_policy=_each(config, "victim"),
                    eviction=_each(config, "eviction"),
                ),
                seed=config.seed,
            )


def part(config: DictConfig, group: str, **arguments: Any) -> Any:
    """The object that a group names. Raises ConfigError unless it is of the kind it must be."""
    return build(config[group], group, KINDS[group], **arguments)


def _each(config: DictConfig, group: str) -> Callable[[], Any]:
    """Makes a new object of a group for each replica."""
    make: Callable[[], Any] = factory(config[group], group, KINDS[group])
    return make


def _cache_config(config: DictConfig, model: ModelConfig) -> CacheConfig:
    """The cache's settings; the attention window is the model's own where none is given."""
    cache: CacheConfig = settings(config, "cache")
    if cache.sliding_window is None and cache.hybrid_window is None and model.sliding_window:
        return replace(cache, sliding_window=model.sliding_window)
    return cache


def check_pairing(config: DictConfig, scheduler: SchedulerConfig) -> None:
    """Refuse a queue that contradicts the scheduling policy."""
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
    return part(config, "cost_model", **given)


def _num_host_blocks(
    model: ModelConfig, parallel: ParallelConfig, scheduler: SchedulerConfig, cache: CacheConfig
) -> int:
    """Blocks that the host memory of one GPU's share holds; none unless victims are swapped."""
    if scheduler.preemption_mode != "swap":
        return 0
    groups = num_kv_groups(cache.hybrid_window)
    return int(cache.swap_space_gib * GIB // block_bytes(model, parallel, cache.block_size, groups))
