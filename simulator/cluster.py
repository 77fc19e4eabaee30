"""What a simulated cluster consists of, and what does not go together in it.

Knows settings of the servers as a whole. How a server works, its own engine core knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from simulator.bounds import check_count, check_number
from simulator.cost_models.base import CostModel
from simulator.cost_models.drafting import DraftingCostModel
from workbench.config import SchedulerConfig, at_least, check_types
from workbench.errors import ConfigError
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.scheduler.batch_policy import BatchPolicy
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.request_queue import RequestQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """The servers of a run.

    Attributes:
        replicas: Engine cores, each with its own KV cache.
        acceptance_rate: Probability that a draft token is accepted (speculative decoding).
        draft_cost: What the drafter takes for one token of every row, as a share of what the model
            takes for it. 0.1 is a head of one layer (EAGLE) on an 8B model; 0 is the look-up of
            n-grams in the prompt. A replay of recorded steps has it in its times already.
        lock_step: Whether the replicas are the data-parallel ranks of one server that share experts
            (parallel.data_parallel_size = replicas): their steps begin and end together.
    """

    replicas: int = 1
    acceptance_rate: float = 0.7
    draft_cost: float = 0.1
    lock_step: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "replicas")
        if not 0.0 <= self.acceptance_rate <= 1.0:
            raise ConfigError(f"acceptance_rate={self.acceptance_rate} must be in [0, 1]")
        check_number("draft_cost", self.draft_cost, below=1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What decides on a replica; each call gives a replica its own object. None: vLLM's choice."""

    queue: Callable[[], RequestQueue] | None = None
    batch_policy: Callable[[], BatchPolicy] | None = None
    victim_policy: Callable[[], VictimPolicy] | None = None
    eviction: Callable[[], EvictionPolicy] | None = None

    def make(self) -> dict[str, Any]:
        """New policies for one replica, as arguments of its Scheduler."""
        makers = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: maker and maker() for name, maker in makers.items()}


def cost_models_of(
    cost_model: CostModel | Sequence[CostModel], cluster: ClusterConfig, num_drafts: int
) -> list[CostModel]:
    """The cost model of every replica, with the drafter's share.

    Args:
        cost_model: One for all replicas, or one each.
        num_drafts: Draft tokens a row; 0: no drafter.

    Raises:
        ConfigError: Neither one model nor one a replica, or a model without prices for a replica.
    """
    given = list(cost_model) if isinstance(cost_model, Sequence) else [cost_model]
    if len(given) not in (1, cluster.replicas):
        raise ConfigError(
            f"{len(given)} cost models for {cluster.replicas} replicas: "
            "give one for all, or one each"
        )
    models = [given[i % len(given)].for_replica(i) for i in range(cluster.replicas)]
    if not num_drafts or not cluster.draft_cost:
        return models
    return [
        model if model.is_replay else DraftingCostModel(model, num_drafts, cluster.draft_cost)
        for model in models
    ]


def check_pipeline(
    scheduler_config: SchedulerConfig, num_stages: int, lock_step: bool = False
) -> None:
    """Refuse what cannot run on a pipeline of so many stages.

    Raises:
        ConfigError: Asynchronous scheduling or ranks in lock step with more than one stage, or no
            stage.
    """
    check_count("pipeline_parallel_size", num_stages)
    if scheduler_config.async_scheduling and num_stages > 1:
        # vLLM 0.33: VllmConfig.max_concurrent_batches, AsyncScheduler.decode_stagger
        raise ConfigError(
            f"async_scheduling=true with pipeline_parallel_size={num_stages} is not modelled: vLLM"
            " refuses it with its first model runner, and with its second keeps one more step in"
            " flight than stages and holds each request back for as many steps as stages, a rule"
            " that this scheduler lacks: set scheduler.async_scheduling=false or"
            " parallel.pipeline_parallel_size=1"
        )
    if lock_step and num_stages > 1:
        raise ConfigError(
            f"cluster.lock_step=true with pipeline_parallel_size={num_stages} is"
            " not modelled: set one of them back"
        )
