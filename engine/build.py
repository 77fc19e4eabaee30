"""Puts an engine together: model, KV cache, runner, scheduler and core, from one config.

Knows the order in which things need each other. Policies come in as objects; without them the
core's own defaults hold, which are vLLM's.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from engine.attention.backend import AttentionBackend, backend_class
from engine.clock import WallClock
from engine.config import EngineConfig
from engine.cuda_graph import CudaGraphs, GraphBuffers, capture_sizes
from engine.executor import EngineExecutor, InlineExecutor, ThreadedExecutor
from engine.input_batch import InputBatch
from engine.kv_cache import FP8, KVCacheLayout, assign_groups
from engine.kv_capacity import check_capacity, num_kv_blocks
from engine.loader import GIB, load_model
from engine.model_runner import ModelRunner
from engine.models.causal_lm import CausalLM
from engine.models.registry import read_hf_config
from engine.sampling_batch import SamplingBatch
from engine.spec_decode.ngram import NgramProposer
from engine.swap_space import SwapSpace
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.errors import ConfigError
from workbench.executor import Clock
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.scheduler.batch_policy import BatchPolicy
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.request_queue import RequestQueue
from workbench.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What decides, for one engine. None: what vLLM does."""

    queue: RequestQueue | None = None
    batch_policy: BatchPolicy | None = None
    victim_policy: VictimPolicy | None = None
    eviction: EvictionPolicy | None = None


@dataclass(frozen=True, slots=True)
class EngineParts:
    """A built engine.

    Attributes:
        core: What is driven step by step.
        executor: Its executor; `shutdown()` ends its threads.
        runner: Runs the model.
        model: The model.
        hf_config: Its config.
        scheduler_config, cache_config: As they are in force: length and windows are the model's
            where the user left them open.
        num_blocks: Usable KV blocks.
        device: Where the model is.
        num_host_blocks: Host blocks for preemption by swapping.
    """

    core: EngineCore
    executor: EngineExecutor
    runner: ModelRunner
    model: CausalLM
    hf_config: "PretrainedConfig"
    scheduler_config: SchedulerConfig
    cache_config: CacheConfig
    num_blocks: int
    device: torch.device
    num_host_blocks: int = 0


def build_engine_core(
    config: EngineConfig, policies: Policies | None = None, clock: Clock | None = None
) -> EngineParts:
    """Load the model, size the KV cache, and make a core that drives them.

    Args:
        config: Settings.
        policies: What decides.
        clock: The core's time; default: seconds since now.

    Raises:
        ModelLoadError, OutOfMemoryError, ConfigError: In one line, with the cure.
    """
    assembly = _Assembly(config)
    scheduler = assembly.scheduler(policies or Policies())
    runner = assembly.runner(scheduler)
    executor = assembly.executor(runner)
    return EngineParts(
        _core(scheduler, executor, clock or WallClock()),
        executor,
        runner,
        assembly.model,
        assembly.hf_config,
        assembly.scheduler_config,
        assembly.cache_config,
        assembly.num_blocks,
        assembly.device,
        assembly.num_host_blocks,
    )


def with_budget(
    parts: EngineParts, max_num_batched_tokens: int, policies: Policies | None = None
) -> EngineParts:
    """The same model and memory under a new scheduler with a smaller budget of tokens a step.

    The new core knows nothing of what the KV cache holds, so the old one must have no requests, and
    must not be used once the new one has had some.

    Args:
        parts: An engine without requests.
        max_num_batched_tokens: Tokens of a step.
        policies: What decides; objects of its own.

    Raises:
        ConfigError: More tokens than the engine's memory was divided for, or too few.
    """
    own = parts.scheduler_config
    if max_num_batched_tokens > own.max_num_batched_tokens:
        raise ConfigError(
            f"max_num_batched_tokens={max_num_batched_tokens} exceeds the"
            f" {own.max_num_batched_tokens} that the engine was built for: lower it"
        )
    config = replace(own, max_num_batched_tokens=max_num_batched_tokens)
    scheduler = _scheduler(
        config, parts.cache_config, parts.num_blocks, parts.num_host_blocks, policies or Policies()
    )
    core = _core(scheduler, parts.executor, parts.core.clock)
    return replace(parts, core=core, scheduler_config=config)


def resolve_device(name: str) -> torch.device:
    """The device that `name` means; "auto" is a GPU if there is one.

    Raises:
        ConfigError: A GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ConfigError(f"device={name!r}, but torch sees no GPU: set device='cpu'")
        if (device.index or 0) >= count:
            raise ConfigError(f"device={name!r}, but torch sees {count} GPU: use a lower index")
        # Streams of graphs and launches of kernels go to the current device.
        torch.cuda.set_device(device)
    return device


def resolve_length(config: SchedulerConfig, hf_config: "PretrainedConfig") -> SchedulerConfig:
    """The config with `max_model_len` set: at most, and by default, the model's own.

    Raises:
        ConfigError: Longer than the model's positions.
    """
    longest = int(hf_config.max_position_embeddings)
    asked = config.max_model_len
    if asked is not None and asked > longest:
        raise ConfigError(
            f"max_model_len={asked} exceeds max_position_embeddings={longest} of the model: "
            "lower it"
        )
    return replace(config, max_model_len=asked or longest)


class _Assembly:
    """The parts of an engine in the order in which they need each other."""

    def __init__(self, config: EngineConfig) -> None:
        """Load the model and divide the memory."""
        self.config = config
        self.device = resolve_device(config.device)
        model = config.model
        self.hf_config = read_hf_config(model if isinstance(model, str) else dict(model))
        self.scheduler_config = resolve_length(config.scheduler_config, self.hf_config)
        path = model if isinstance(model, str) else None
        self.model = load_model(
            self.hf_config, path, config.load_format, config.dtype, self.device, config.seed
        )
        self.specs, self.cache_config = assign_groups(
            self.model.attention_specs, config.cache_config, self.scheduler_config.preemption_mode
        )
        kv_dtype = FP8 if config.kv_cache_dtype == "fp8" else self.model.embedding.weight.dtype
        self.layout = KVCacheLayout.of(self.specs, self.cache_config.block_size, kv_dtype)
        self.num_blocks = num_kv_blocks(
            config, self.scheduler_config, self.model, self.layout, self.device
        )
        self.num_host_blocks = 0
        if self.scheduler_config.preemption_mode == "swap":
            num_bytes = int(self.cache_config.swap_space_gib * GIB)
            self.num_host_blocks = num_bytes // self.layout.block_bytes

    @property
    def max_model_len(self) -> int:
        """Most tokens of a request."""
        assert self.scheduler_config.max_model_len is not None
        return self.scheduler_config.max_model_len

    def scheduler(self, policies: Policies) -> Scheduler:
        """The scheduler; refuses a cache that is too small for one request."""
        scheduler = _scheduler(
            self.scheduler_config,
            self.cache_config,
            self.num_blocks,
            self.num_host_blocks,
            policies,
        )
        groups = scheduler.kv_cache_manager.groups
        check_capacity(
            self.config, groups, self.num_blocks, self.max_model_len, self.layout, self.device
        )
        return scheduler

    def runner(self, scheduler: Scheduler) -> ModelRunner:
        """The model runner, with its cache allocated and its graphs captured."""
        config, scheduler_config = self.config, self.scheduler_config
        num_groups = len(scheduler.kv_cache_manager.groups)
        tensors = self.layout.allocate(self.num_blocks + 1, self.device)
        backend = backend_class(config.attention_backend, self.device)(
            self.specs,
            self.model.cos_sin_cache,
            self.layout.by_layer(tensors),
            self.cache_config.block_size,
        )
        num_slots = scheduler_config.max_num_seqs
        num_drafts = scheduler_config.num_speculative_tokens
        return ModelRunner(
            self.model,
            backend,
            InputBatch(
                num_slots,
                self.max_model_len,
                self.cache_config.block_size,
                num_groups,
                self.device,
                num_drafts,
            ),
            SamplingBatch(num_slots, self.model.vocab_size, self.device, config.seed),
            self.device,
            swap_space=SwapSpace(tensors, self.num_host_blocks) if self.num_host_blocks else None,
            proposer=self._proposer(num_drafts),
            graphs=self._graphs(backend, num_groups),
        )

    def _proposer(self, num_drafts: int) -> NgramProposer | None:
        shortest, longest = self.config.prompt_lookup_min, self.config.prompt_lookup_max
        return NgramProposer(num_drafts, shortest, longest) if num_drafts else None

    def _graphs(self, backend: AttentionBackend, num_groups: int) -> CudaGraphs | None:
        is_wanted = self.device.type == "cuda" and not self.config.enforce_eager
        if not is_wanted or not backend.supports_cuda_graph:
            return None
        if not self.model.supports_cuda_graph:
            return None
        asked = self.config.cudagraph_capture_sizes
        sizes = capture_sizes(self.scheduler_config.max_num_seqs, asked)
        width = -(-self.max_model_len // backend.block_size)
        buffers = GraphBuffers(sizes[-1], width, num_groups, self.device)
        graphs = CudaGraphs(self.model, backend, sizes, self.max_model_len, buffers)
        graphs.capture()
        return graphs

    def executor(self, runner: ModelRunner) -> EngineExecutor:
        """A thread where the caller would wait for a step: on a CPU, and for verified drafts."""
        waits = self.device.type == "cpu" or self.scheduler_config.num_speculative_tokens > 0
        if self.scheduler_config.async_scheduling and waits:
            return ThreadedExecutor(runner, self.device)
        return InlineExecutor(runner)


def _scheduler(
    config: SchedulerConfig,
    cache_config: CacheConfig,
    num_blocks: int,
    num_host_blocks: int,
    policies: Policies,
) -> Scheduler:
    return Scheduler(
        config,
        cache_config,
        num_blocks,
        num_host_blocks=num_host_blocks,
        queue=policies.queue,
        victim_policy=policies.victim_policy,
        batch_policy=policies.batch_policy,
        eviction=policies.eviction,
        # Here blocks have contents: one that was promised and not computed must not be found.
        forget_uncomputed_blocks=True,
    )


def _core(scheduler: Scheduler, executor: EngineExecutor, clock: Clock) -> EngineCore:
    is_async = scheduler.config.async_scheduling
    return (PipelinedEngineCore if is_async else EngineCore)(scheduler, executor, clock)
