"""From a composed config to a run on the real engine.

Knows which settings of the simulator mean the same here (model, scheduler, cache, policies,
workload), which mean nothing (hardware, cost model: the machine is what it is), and which cannot
be had (several replicas, parallelism). The model and its KV cache are built once a run.
"""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.assemble import check_pairing, part
from experiments.backend import EngineBackend, Run, settings_of
from experiments.budget import notes, scheduler_config
from experiments.schema import naming_groups, settings
from simulator.cluster import ClusterConfig
from simulator.model_config import PRESETS, ModelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError, WorkbenchError
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.metrics import SLO
from workbench.recording import RecordingSink, RecordingWriter
from workbench.scheduler.batch_policy import BatchPolicy

if TYPE_CHECKING:
    from engine.build import EngineParts, Policies

# top-level modules of the extra [engine]
EXTRA = ("safetensors", "tokenizers", "torch", "transformers", "triton")
# files with weights, some of them such that the loader refuses them by name
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth", "*.gguf")
DTYPES = ("float32", "float16", "bfloat16")
KV_CACHE_DTYPES = ("fp8",)
# groups of the config that name what decides in a scheduler
POLICIES = ("queue", "batch_policy", "victim", "eviction")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAssembly:
    """A loaded engine, and what its run consists of.

    `notes` tells, a line each, what was decided for the user and is not to be seen in the config.
    """

    config: DictConfig
    parts: "EngineParts"
    cluster: ClusterConfig
    scheduler: SchedulerConfig
    slo: SLO
    num_kv_blocks: int
    notes: list[str]
    facts: dict[str, Any]

    @property
    def activity(self) -> str:
        """What a run of it does."""
        return "serving"

    @classmethod
    def from_config(cls, config: DictConfig, backend: EngineBackend) -> "EngineAssembly":
        """Load the model and check all parts. Raises WorkbenchError subclasses."""
        _check_single(config)
        model: ModelConfig = part(config, "model")
        policy: BatchPolicy = part(config, "batch_policy")
        scheduler = scheduler_config(config, model, policy)
        check_pairing(config, scheduler)
        folder = _model_folder(config)
        load_format, told = _load_format(folder, backend)
        backend = replace(_with_model_dtypes(config, backend), load_format=load_format)
        parts = _build(backend, config, folder, scheduler, policy)
        return cls(
            config=config,
            parts=parts,
            cluster=settings(config, "cluster"),
            scheduler=parts.scheduler_config,
            slo=settings(config, "slo"),
            num_kv_blocks=parts.num_blocks,
            notes=[*notes(config, scheduler, policy), *told],
            facts={"backend": "engine", "engine": _facts(parts, backend)},
        )

    def start(self) -> Run:
        """The run. It can be had once: the engine's cache and clock are its own."""
        from engine.serving_run import ServingRun

        recording = self.new_recording() if self.config.backend.get("record", False) else None
        workload = part(self.config, "workload")
        return ServingRun(self.parts, workload, self.config.seed, recording)

    def with_budget(self, max_num_batched_tokens: int) -> "EngineParts":
        """The engine under a scheduler of its own, with so many tokens a step at most.

        Raises:
            ConfigError: A budget that the batch policy or the engine does not allow.
        """
        from engine.build import with_budget

        config = self.config.copy()
        config.scheduler.max_num_batched_tokens = max_num_batched_tokens
        policy: BatchPolicy = part(config, "batch_policy")
        scheduler_config(config, part(config, "model"), policy)
        with naming_groups("scheduler"):
            return with_budget(self.parts, max_num_batched_tokens, _policies(config, policy))

    def new_recording(self, sink: RecordingSink | None = None) -> RecordingWriter:
        """Takes down what the engine is asked and decides, from its first step on.

        Args:
            sink: Takes it as it goes; None: it is kept in memory.
        """
        from engine.core_recorder import recorded_settings

        policies = {group: _plain_node(self.config[group]) for group in POLICIES}
        return RecordingWriter(recorded_settings(self.parts, policies), sink)


def _build(
    backend: EngineBackend,
    config: DictConfig,
    folder: Path,
    scheduler: SchedulerConfig,
    batch_policy: BatchPolicy,
) -> "EngineParts":
    try:
        from engine.build import build_engine_core
        from engine.config import EngineConfig
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise ConfigError(
            f"backend=engine needs {error.name}, which is not installed: "
            "pip install -e '.[engine]', or use backend=simulator"
        ) from error
    cache: CacheConfig = settings(config, "cache")
    policies = _policies(config, batch_policy)
    gc.collect()  # the engine of an earlier job may hang in cycles, with all of its memory
    with naming_groups("scheduler", "cache"), _naming_backend():
        return build_engine_core(
            EngineConfig(
                model=str(folder),
                skip_tokenizer_init=True,
                seed=config.seed,
                scheduler_config=scheduler,
                cache_config=cache,
                **settings_of(backend),
            ),
            policies,
        )


def _policies(config: DictConfig, batch_policy: BatchPolicy) -> "Policies":
    from engine.build import Policies

    return Policies(
        queue=part(config, "queue"),
        batch_policy=batch_policy,
        victim_policy=part(config, "victim"),
        eviction=_eviction(config),
    )


def _eviction(config: DictConfig) -> EvictionPolicy:
    eviction: EvictionPolicy = part(config, "eviction")
    if eviction.needs_future:
        raise ConfigError(
            f"{type(eviction).__name__} must know the requests to come, and a real engine does "
            "not: choose eviction=lru, or backend=simulator"
        )
    return eviction


def _plain_node(node: DictConfig) -> dict[str, Any]:
    """What a config says of a part: its class and arguments."""
    plain = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    return {name: value for name, value in plain.items() if name != "_partial_"}


@contextmanager
def _naming_backend() -> Iterator[None]:
    """Writes settings of the backend as the command line has them, in errors about one of them.

    The engine says device='cuda'; what is typed is backend.device=cuda.
    """
    names = "|".join(field.name for field in fields(EngineBackend))
    try:
        yield
    except WorkbenchError as error:
        if re.match(rf"(?:{names})\b", str(error)) is None:
            raise
        text = re.sub(rf"^|(?<![\w.])(?=(?:{names})=)", "backend.", str(error))
        told = re.sub(r"(backend\.\w+=)'([\w.-]+)'", r"\1\2", text)
        raise type(error)(told) from error


def _facts(parts: "EngineParts", backend: EngineBackend) -> dict[str, Any]:
    from engine.engine_facts import engine_facts

    return engine_facts(parts, backend.dtype, backend.load_format == "dummy")


def _with_model_dtypes(config: DictConfig, backend: EngineBackend) -> EngineBackend:
    """The backend with the number formats of the model group where it names none itself."""
    for name, known in (("dtype", DTYPES), ("kv_cache_dtype", KV_CACHE_DTYPES)):
        asked, own = str(config.model.get(name, "auto")), getattr(backend, name)
        if asked == "auto":
            continue
        if asked not in known or own not in ("auto", asked):
            raise ConfigError(
                f"model.{name}={asked} cannot be had with backend=engine backend.{name}={own}: "
                f"use one of {', '.join(known)} for both, or leave model.{name}=auto"
            )
        changed: dict[str, Any] = {name: asked}
        backend = replace(backend, **changed)
    return backend


def _check_single(config: DictConfig) -> None:
    """One engine on one device is what there is."""
    if (replicas := settings(config, "cluster").replicas) != 1:
        raise ConfigError(
            f"cluster.replicas={replicas}: backend=engine runs one replica; set it to 1, or use "
            "backend=simulator"
        )
    parallel: Any = settings(config, "parallel")
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if (size := getattr(parallel, name)) != 1:
            raise ConfigError(
                f"parallel.{name}={size}: backend=engine runs on one device; choose "
                "parallel=single, or use backend=simulator"
            )


def _model_folder(config: DictConfig) -> Path:
    """The folder with the model's config.json."""
    path = config.model.get("path")
    if path is None:
        return PRESETS / str(config.model.name)
    return Path(path).parent if Path(path).is_file() else Path(path)


def _load_format(folder: Path, backend: EngineBackend) -> tuple[str, list[str]]:
    """How to load, and what to say about it."""
    if backend.load_format != "auto" or any(any(folder.glob(name)) for name in WEIGHTS):
        return backend.load_format, []
    return "dummy", [
        f"the weights are random: {folder.name} has no *.safetensors beside its config"
    ]
