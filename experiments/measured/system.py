"""What served a measured run: model, GPU, parallelism and limits, from the files beside it.

Knows how vLLM names its settings, and its defaults. It does not know what a step costs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from experiments.assemble import part
from experiments.measured.run_files import META, MeasuredRun
from experiments.run import compose_config
from experiments.schema import group_options
from simulator.hardware import HardwareConfig
from simulator.hf_config import read_hf_config
from simulator.memory import num_kv_blocks
from simulator.model_config import PRESETS, ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError

# vLLM 0.19, where meta.json does not say
DEFAULT_TOKENS, DEFAULT_SEQS, DEFAULT_UTILIZATION, BLOCK_SIZE = 2048, 256, 0.9, 16
LARGEST_GRAPH = 512


@dataclass(frozen=True, slots=True)
class System:
    """A server as it was set up.

    Attributes:
        num_blocks: Usable KV blocks of a replica.
        replicas: Engine cores that share the requests.
        lock_step: Whether they step together, because they share experts.
        graph_tokens: Most tokens of a step that runs as a captured graph; 0: no graphs.
        version: Of vLLM.
        told_blocks: Whether meta.json told `num_blocks`; else they follow from memory.
    """

    model: ModelConfig
    hardware: HardwareConfig
    parallel: ParallelConfig
    scheduler: SchedulerConfig
    cache: CacheConfig
    num_blocks: int
    replicas: int
    lock_step: bool
    graph_tokens: int
    version: str
    told_blocks: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What it consists of, in plain values."""
        return {
            "model": self.model.name,
            "hardware": self.hardware.name,
            "vllm_version": self.version,
            "tensor_parallel_size": self.parallel.tensor_parallel_size,
            "data_parallel_size": self.replicas,
            "enable_expert_parallel": self.parallel.enable_expert_parallel,
            "max_num_seqs": self.scheduler.max_num_seqs,
            "max_num_batched_tokens": self.scheduler.max_num_batched_tokens,
            "max_model_len": self.scheduler.max_model_len,
            "async_scheduling": self.scheduler.async_scheduling,
            "num_kv_blocks": self.num_blocks,
            "kv_blocks_from": META if self.told_blocks else "memory model",
        }


class _Told:
    """The settings of meta.json: what vLLM resolved, else what it was given."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self._given = _mapping(meta.get("engine_kwargs"))
        self._resolved = _mapping(meta.get("resolved_config"))
        self._cache = _mapping(meta.get("kv_cache"))

    def __call__(self, section: str, name: str, default: Any = None) -> Any:
        places = [_mapping(self._resolved.get(section)), self._given]
        if section == "cache_config":
            places.insert(0, self._cache)
        return next((p[name] for p in places if p.get(name) is not None), default)

    def count(self, section: str, name: str, default: int | None = None) -> int | None:
        """A whole number of at least 0; raises ConfigError for anything else."""
        value = self(section, name, default)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise ConfigError(f"{META} holds {name}={value!r}: it must be a whole number")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def system_of(run: MeasuredRun, model: str | None = None, hardware: str | None = None) -> System:
    """The server of a measured run.

    Args:
        run: Its files.
        model, hardware: Options of conf/model and conf/hardware that replace what the files say.

    Raises:
        ConfigError: A model or a GPU that is not known, or a setting that is none.
    """
    told = _Told(run.meta)
    its_model = _model(run, model, told)
    its_hardware = _hardware(run, hardware)
    replicas = told.count("parallel_config", "data_parallel_size", 1) or 1
    lock_step = bool(its_model.num_experts) and replicas > 1
    parallel = _parallel(told, replicas if lock_step else 1)
    its_model.check_parallel(parallel)
    scheduler = _scheduler(told, its_model)
    cache = _cache(told, its_model)
    blocks = told.count("cache_config", "num_gpu_blocks")
    if blocks:
        num_blocks = blocks - 1  # vLLM's null block holds nothing
    else:
        num_blocks = num_kv_blocks(its_model, its_hardware, parallel, scheduler, cache)
    return System(
        model=its_model,
        hardware=its_hardware,
        parallel=parallel,
        scheduler=scheduler,
        cache=cache,
        num_blocks=num_blocks,
        replicas=replicas,
        lock_step=lock_step,
        graph_tokens=_graph_tokens(told, scheduler),
        version=str(run.meta.get("vllm_version", "")),
        told_blocks=bool(blocks),
    )


def _parallel(told: _Told, data_parallel_size: int) -> ParallelConfig:
    section = "parallel_config"
    return ParallelConfig(
        tensor_parallel_size=told.count(section, "tensor_parallel_size", 1) or 1,
        pipeline_parallel_size=told.count(section, "pipeline_parallel_size", 1) or 1,
        data_parallel_size=data_parallel_size,
        enable_expert_parallel=bool(told(section, "enable_expert_parallel", False)),
    )


def _cache(told: _Told, model: ModelConfig) -> CacheConfig:
    section = "cache_config"
    return CacheConfig(
        block_size=told.count(section, "block_size", BLOCK_SIZE) or BLOCK_SIZE,
        enable_prefix_caching=bool(told(section, "enable_prefix_caching", True)),
        gpu_memory_utilization=told(section, "gpu_memory_utilization", DEFAULT_UTILIZATION),
        sliding_window=model.sliding_window,
    )


def _scheduler(told: _Told, model: ModelConfig) -> SchedulerConfig:
    section = "scheduler_config"
    policy = told(section, "policy", "fcfs")
    return SchedulerConfig(
        max_num_seqs=told.count(section, "max_num_seqs", DEFAULT_SEQS) or DEFAULT_SEQS,
        max_num_batched_tokens=told.count(section, "max_num_batched_tokens", DEFAULT_TOKENS)
        or DEFAULT_TOKENS,
        max_model_len=told.count("model_config", "max_model_len") or model.max_position_embeddings,
        enable_chunked_prefill=bool(told(section, "enable_chunked_prefill", True)),
        long_prefill_token_threshold=told.count(section, "long_prefill_token_threshold", 0) or 0,
        scheduler_reserve_full_isl=bool(told(section, "scheduler_reserve_full_isl", True)),
        policy=policy,
        async_scheduling=bool(told(section, "async_scheduling", True)),
    )


def _graph_tokens(told: _Told, scheduler: SchedulerConfig) -> int:
    if told("model_config", "enforce_eager", False):
        return 0
    largest = told.count("compilation_config", "max_cudagraph_capture_size")
    return min(2 * scheduler.max_num_seqs, LARGEST_GRAPH) if largest is None else largest


def _model(run: MeasuredRun, option: str | None, told: _Told) -> ModelConfig:
    """The option, else the Hugging Face config beside the run, else the preset of that name."""
    dtype = str(told("model_config", "dtype", "auto")).removeprefix("torch.")
    kv_dtype = str(told("cache_config", "kv_cache_dtype", "auto"))
    if option is not None:
        model: ModelConfig = part(compose_config([f"model={option}"]), "model")
        return model
    name = str(run.meta.get("model") or _instance(run.config).get("model_name") or "")
    if "hidden_size" in run.config or "text_config" in run.config:
        path = run.folder / "config.json"
        return ModelConfig.from_hf_config(path, name or None, dtype, kv_dtype)
    if not name:
        raise ConfigError(f"{run.folder}: neither {META} nor config.json names a model")
    return model_named(name, dtype, kv_dtype)


def model_named(name: str, dtype: str = "auto", kv_dtype: str = "auto") -> ModelConfig:
    """The preset with the Hugging Face name `name`, or the longest that it begins with.

    Raises:
        ConfigError: There is none.
    """
    presets = {}
    for folder in sorted(PRESETS.iterdir()):
        if (folder / "config.json").is_file():
            presets[_plain(read_hf_config(folder)[0].rpartition("/")[2])] = folder.name
    wanted = _plain(name.rpartition("/")[2])
    fitting = [known for known in presets if wanted.startswith(known)]
    if not fitting:
        raise ConfigError(
            f"the model {name!r} is not known: put its Hugging Face config.json beside the run, or"
            f" name an option of conf/model, model={next(iter(presets.values()), 'NAME')}"
        )
    preset = load_model_preset(presets[max(fitting, key=len)], dtype, kv_dtype)
    return replace(preset, name=name)


def _hardware(run: MeasuredRun, option: str | None) -> HardwareConfig:
    names = [
        option,
        _mapping(run.meta.get("hardware")).get("device_name"),
        _instance(run.config).get("hardware"),
        run.folder.resolve().parent.name,
        run.folder.resolve().name,
    ]
    for name in names:
        if name and (found := _hardware_option(str(name))):
            hardware: HardwareConfig = part(compose_config([f"hardware={found}"]), "hardware")
            return hardware
        if name and name is option:
            break
    told = next((str(name) for name in names if name), str(run.folder))
    raise ConfigError(
        f"the GPU {told!r} is not known: name an option of conf/hardware, hardware=NAME, one of"
        f" {', '.join(group_options()['hardware'])}"
    )


def _hardware_option(name: str) -> str | None:
    """The option of conf/hardware that a device's name holds; the longest, if several do."""
    plain = _plain(name)
    fitting = [option for option in group_options()["hardware"] if _plain(option) in plain]
    return max(fitting, key=len, default=None)


def _instance(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first instance of a cluster that config.json describes."""
    for key in ("nodes", "instances"):
        entries = config.get(key)
        if not isinstance(entries, list) or not entries or not isinstance(entries[0], Mapping):
            return {}
        config = entries[0]
    return config


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
