"""The simulated world in a core process: a composed config as an engine core in scaled real time.

Knows which parts a server is made of and which settings it cannot have. It imports no torch.
"""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from engine.served_core import ServedCore, core_info
from experiments.assemble import Assembly, part
from experiments.schema import naming_groups
from experiments.serving.core_settings import from_plain
from experiments.serving.grammars import grammar_compiler
from simulator.cluster import check_pipeline, cost_models_of
from simulator.drawn_tokens import DrawnTokens
from simulator.real_time import Pace, RealTimeExecutor
from simulator.scaled_clock import ScaledClock
from simulator.token_source import DraftTokenSource
from simulator.vocabulary import Vocabulary
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.errors import ConfigError
from workbench.scheduler.scheduler import Scheduler

logger = logging.getLogger(__name__)


def make_core(settings: Mapping[str, Any]) -> ServedCore:
    """The simulator in scaled real time. Raises WorkbenchError subclasses."""
    assembly = assemble_served(from_plain(settings["config"]))
    clock = ScaledClock(settings["speed"])
    vocabulary = Vocabulary(**settings["vocabulary"])
    executor = _executor(assembly, settings, clock, vocabulary)
    scheduler = _scheduler(assembly)
    depth = _depth(assembly)
    core = (
        EngineCore(scheduler, executor, clock)
        if depth == 1
        else PipelinedEngineCore(scheduler, executor, clock, depth)
    )
    clock.watch(lambda: core.has_work)
    info = core_info(
        core,
        world="simulator",
        vocab_size=vocabulary.size,
        model=settings["model"],
        speed=clock.speed,
        facts={"cost_model": type(assembly.cost_model).__name__, "notes": assembly.notes},
    )
    return ServedCore(
        core=core,
        info=info,
        cache_config=assembly.cache,
        to_wall=clock.to_wall,
        from_wall=clock.from_wall,
        grammars=grammar_compiler(settings, vocabulary.size),
        calls={"pace": lambda: _plain_pace(executor.pace)},
    )


def assemble_served(config: DictConfig) -> Assembly:
    """The parts of a simulated server; refuses what a run can simulate and a server cannot be.

    Raises:
        ConfigError: Several replicas, an eviction policy that must know the future, prices of one
            run.
    """
    assembly = Assembly.from_config(config)
    if assembly.cluster.replicas != 1 or assembly.cluster.lock_step:
        raise ConfigError(
            f"cluster.replicas={assembly.cluster.replicas}: a server has one engine; start several,"
            " and put `workbench route` before them"
        )
    eviction = part(assembly.config, "eviction")
    if eviction.needs_future:
        raise ConfigError(
            f"{type(eviction).__name__} must know the requests to come, and a server does not:"
            " choose eviction=lru"
        )
    if assembly.cost_model.is_replay or assembly.cost_model.wants_time:
        raise ConfigError(
            f"{type(assembly.cost_model).__name__} has prices for one run only, those of recorded"
            " steps or of each second: choose cost_model=roofline, or cost_model=calibrated with"
            " one pace or slowdown"
        )
    check_pipeline(assembly.scheduler, assembly.parallel.pipeline_parallel_size)
    return assembly


def _depth(assembly: Assembly) -> int:
    """Steps in flight at once."""
    at_least = 2 if assembly.scheduler.async_scheduling else 1
    return max(assembly.parallel.pipeline_parallel_size, at_least)


def _scheduler(assembly: Assembly) -> Scheduler:
    config = assembly.config
    with naming_groups("scheduler", "cache"):
        return Scheduler(
            assembly.scheduler,
            assembly.cache,
            assembly.num_kv_blocks,
            num_host_blocks=assembly.num_host_blocks,
            queue=part(config, "queue"),
            victim_policy=part(config, "victim"),
            batch_policy=part(config, "batch_policy"),
            eviction=part(config, "eviction"),
            max_concurrent_batches=_depth(assembly),
            # as the real engine has it
            forget_uncomputed_blocks=True,
        )


def _executor(
    assembly: Assembly, settings: Mapping[str, Any], clock: ScaledClock, vocabulary: Vocabulary
) -> RealTimeExecutor:
    seed, num_drafts = assembly.config.seed, assembly.scheduler.num_speculative_tokens
    drafts = None
    if num_drafts:
        drafts = DraftTokenSource(num_drafts, assembly.cluster.acceptance_rate, seed)
    return RealTimeExecutor(
        clock,
        cost_models_of(assembly.cost_model, assembly.cluster, num_drafts)[0],
        DrawnTokens(vocabulary, seed, settings.get("mean_output_tokens"), drafts),
        assembly.parallel.pipeline_parallel_size,
        overlaps_host=assembly.scheduler.async_scheduling,
        tell=logger.warning,
    )


def _plain_pace(pace: Pace) -> dict[str, float]:
    return {
        "speed": pace.speed,
        "reached": pace.reached,
        "busy_s": pace.busy_s,
        "lost_s": pace.lost_s,
    }
