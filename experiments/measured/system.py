"""What served a measured run: model, GPU, parallelism and limits, from the files beside it.

Knows how vLLM names its settings, and its defaults. It does not know what a step costs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from experiments.assemble import part
from experiments.measured.run_files import META, MeasuredRun
from experiments.measured.told import CACHE, COMPILATION, MODEL, PARALLEL, SCHEDULER, Told, mapping
from experiments.run import compose_config
from experiments.schema import group_options
from simulator.cost_models.captured_graphs import usual_sizes
from simulator.hardware import HardwareConfig
from simulator.hf_config import read_hf_config
from simulator.memory import block_bytes, num_kv_blocks
from simulator.model_config import PRESETS, ModelConfig, load_model_preset
from simulator.parallel import ParallelConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError

# vLLM 0.19 within a program (its server has others), where meta.json does not say
DEFAULT_TOKENS, DEFAULT_SEQS, DEFAULT_UTILIZATION, BLOCK_SIZE = 2048, 128, 0.9, 16
LARGEST_GRAPH = 512
_QUANTISED = re.compile(r"[-_](fp8|nvfp4|mxfp4|awq|gptq|int4|int8|w8a8|w4a16)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class System:
    """A server as it was set up.

    Attributes:
        num_blocks: Usable KV blocks of a replica.
        replicas: Engine cores that share the requests.
        lock_step: Whether they step together, because they share experts.
        graph_sizes: Tokens of the steps that run as captured graphs; empty: none does.
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
    graph_sizes: tuple[int, ...]
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


def system_of(run: MeasuredRun, model: str | None = None, hardware: str | None = None) -> System:
    """The server of a measured run.

    Args:
        run: Its files.
        model, hardware: Options of conf/model and conf/hardware that replace what the files say.

    Raises:
        ConfigError: A model or a GPU that is not known, or a setting that is none.
    """
    told = Told(run.meta)
    if told.is_speculative:
        raise ConfigError(
            f"{run.folder / META} tells of speculative_config, and nothing of how many drafted"
            " tokens were accepted: compare a run without it"
        )
    its_model = _model(run, model, told)
    its_hardware = _hardware(run, hardware)
    replicas = told.count(PARALLEL, "data_parallel_size", 1) or 1
    lock_step = bool(its_model.num_experts) and replicas > 1
    parallel = _parallel(run, told, replicas if lock_step else 1)
    its_model.check_parallel(parallel)
    scheduler = _scheduler(told, its_model)
    cache = _cache(told, its_model)
    blocks = _told_blocks(told, its_model, parallel, cache.block_size, replicas)
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
        graph_sizes=_graph_sizes(told, scheduler),
        version=str(run.meta.get("vllm_version", "")),
        told_blocks=bool(blocks),
    )


def _told_blocks(
    told: Told, model: ModelConfig, parallel: ParallelConfig, block_size: int, replicas: int
) -> int:
    """KV blocks of a replica with the null block, as far as meta.json tells them; 0: it does not.

    A front end of several ranks adds up their blocks (vLLM 0.19, `wait_for_engine_startup`).
    """
    blocks = told.count(CACHE, "num_gpu_blocks")
    if blocks:
        return blocks // replicas
    blocks = told.count(CACHE, "num_gpu_blocks_override")
    if blocks:
        return blocks
    memory = told.count(CACHE, "kv_cache_memory_bytes")
    return int(memory // block_bytes(model, parallel, block_size)) if memory else 0


def _parallel(run: MeasuredRun, told: Told, data_parallel_size: int) -> ParallelConfig:
    ranks = told.count(PARALLEL, "tensor_parallel_size", _instance(run.config).get("tp_size"))
    return ParallelConfig(
        tensor_parallel_size=ranks or 1,
        pipeline_parallel_size=told.count(PARALLEL, "pipeline_parallel_size", 1) or 1,
        data_parallel_size=data_parallel_size,
        enable_expert_parallel=bool(told(PARALLEL, "enable_expert_parallel", False)),
    )


def _cache(told: Told, model: ModelConfig) -> CacheConfig:
    return CacheConfig(
        block_size=told.count(CACHE, "block_size", BLOCK_SIZE) or BLOCK_SIZE,
        enable_prefix_caching=bool(told(CACHE, "enable_prefix_caching", True)),
        gpu_memory_utilization=told(CACHE, "gpu_memory_utilization", DEFAULT_UTILIZATION),
        sliding_window=model.sliding_window,
    )


def _scheduler(told: Told, model: ModelConfig) -> SchedulerConfig:
    section = SCHEDULER
    return SchedulerConfig(
        max_num_seqs=told.count(section, "max_num_seqs", DEFAULT_SEQS) or DEFAULT_SEQS,
        max_num_batched_tokens=told.count(section, "max_num_batched_tokens", DEFAULT_TOKENS)
        or DEFAULT_TOKENS,
        max_model_len=told.count(MODEL, "max_model_len") or model.max_position_embeddings,
        enable_chunked_prefill=bool(told(section, "enable_chunked_prefill", True)),
        long_prefill_token_threshold=told.count(section, "long_prefill_token_threshold", 0) or 0,
        scheduler_reserve_full_isl=bool(told(section, "scheduler_reserve_full_isl", True)),
        policy=told(section, "policy", "fcfs"),
        async_scheduling=bool(told(section, "async_scheduling", True)),
    )


def _graph_sizes(told: Told, scheduler: SchedulerConfig) -> tuple[int, ...]:
    mode = told(COMPILATION, "cudagraph_mode")
    if told(MODEL, "enforce_eager", False) or mode in (0, "NONE"):
        return ()
    sizes = told(COMPILATION, "cudagraph_capture_sizes")
    if isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes):
        return tuple(sizes)
    largest = told.count(COMPILATION, "max_cudagraph_capture_size")
    if largest is None:
        most = min(2 * scheduler.max_num_seqs, LARGEST_GRAPH)
        largest = min(most, scheduler.max_num_batched_tokens)
    return usual_sizes(largest)


def _model(run: MeasuredRun, option: str | None, told: Told) -> ModelConfig:
    """The option, else the Hugging Face config beside the run, else the preset of that name."""
    if option is not None:
        model: ModelConfig = part(compose_config([f"model={option}"]), "model")
        return model
    name = str(run.meta.get("model") or _instance(run.config).get("model_name") or "")
    dtype, kv_dtype = _dtypes(run, told, name)
    if "hidden_size" in run.config or "text_config" in run.config:
        path = run.folder / "config.json"
        return ModelConfig.from_hf_config(path, name or None, dtype, kv_dtype)
    if not name:
        raise ConfigError(f"{run.folder}: neither {META} nor config.json names a model")
    return model_named(name, dtype, kv_dtype)


def _dtypes(run: MeasuredRun, told: Told, name: str) -> tuple[str, str]:
    """(of weights, of keys and values); "auto": the checkpoint's own.

    Raises:
        ConfigError: Weights are quantised to what no cost model here prices.
    """
    dtype = str(told(MODEL, "dtype", "auto")).removeprefix("torch.")
    kv_dtype = str(told(CACHE, "kv_cache_dtype") or told(CACHE, "cache_dtype", "auto"))
    if kv_dtype.startswith("fp8"):
        kv_dtype = "fp8"
    suffix = _QUANTISED.search(name)
    method = told(MODEL, "quantization") or mapping(run.config.get("quantization_config")).get(
        "quant_method", suffix[1].lower() if suffix else None
    )
    if method is None:
        return dtype, kv_dtype
    if method != "fp8":
        raise ConfigError(
            f"{name} has weights of quantization={method}, which no cost model here prices: they"
            " know bfloat16, float16 and fp8"
        )
    return "fp8", "bfloat16" if kv_dtype == "auto" else kv_dtype


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
            f" name an option of conf/model, model=NAME, one of {', '.join(presets.values())}"
        )
    preset = load_model_preset(presets[max(fitting, key=len)], dtype, kv_dtype)
    return replace(preset, name=name)


def _hardware(run: MeasuredRun, option: str | None) -> HardwareConfig:
    names = [
        option,
        mapping(run.meta.get("hardware")).get("device_name"),
        _instance(run.config).get("hardware"),
        run.folder.resolve().parent.name,
        run.folder.resolve().name,
    ]
    for name in names:
        if name and (found := _fitting_option(str(name))):
            return hardware_option(found)
        if name and name is option:
            break
    told = next((str(name) for name in names if name), str(run.folder))
    raise ConfigError(
        f"the GPU {told!r} is not known: name an option of conf/hardware, hardware=NAME, one of"
        f" {', '.join(group_options()['hardware'])}"
    )


@lru_cache
def hardware_option(option: str) -> HardwareConfig:
    """The GPU that an option of conf/hardware describes."""
    hardware: HardwareConfig = part(compose_config([f"hardware={option}"]), "hardware")
    return hardware


def _fitting_option(name: str) -> str | None:
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
