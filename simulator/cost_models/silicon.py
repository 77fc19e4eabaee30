"""Step times from aiconfigurator-core, whose tables cover more systems than ship with a checkout.

An optional extra: `pip install llm-serving-workbench[silicon]`. Its compiled engine is asked for
three things, which are kept: everything but attention for a number of tokens, prompt attention for
(chunk, context), and decode attention for (rows, mean context), interpolated between multiples of
64 tokens. Collectives and experts are in the first. It extrapolates by itself and does not say
when, so `num_extrapolated` stays 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.cost_models.kernel_constants import constants_for
from simulator.cost_models.transformer import Parts, TransformerCostModel
from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError, CostModelError

SYSTEMS = {
    "a100": "a100_sxm",
    "b200": "b200_sxm",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "l40s": "l40s",
    "rtx_pro_6000": "rtx_pro_6000_server",
}
_BUCKET = 64


class SiliconCostModel(TransformerCostModel):
    """Asks aiconfigurator-core.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        system: Its name of the GPU; None: that of `hardware`.
        framework: "vllm", "sglang" or "trtllm".
        version: Of the framework; None: the newest it has.
        model_path: A Hugging Face name it knows, or a folder with config.json; None: the model's.
        host_overhead_s, host_overhead_per_request_s: Seconds a step (and a row) of the host.
        block_size: Tokens a KV block, for swaps.

    Raises:
        ConfigError: The package is missing, or does not know the system or the model.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        system: str | None = None,
        framework: str = "vllm",
        version: str | None = None,
        model_path: str | None = None,
        host_overhead_s: float = 0.0,
        host_overhead_per_request_s: float = 0.0,
        block_size: int = 16,
    ) -> None:
        super().__init__(
            model,
            hardware,
            parallel,
            constants_for(hardware.name),
            host_overhead_s,
            host_overhead_per_request_s,
            block_size,
        )
        system = system or SYSTEMS.get(hardware.name)
        if system is None:
            raise ConfigError(
                f"hardware {hardware.name} has no system in aiconfigurator: choose one of"
                f" {', '.join(SYSTEMS)}, or set cost_model.system"
            )
        where = model_path or _folder(model)
        self._engine = _compile(
            where, system, framework, version, parallel, bool(model.num_experts)
        )
        self._prompts: dict[tuple[int, int, int], float] = {}
        self._decodes: dict[tuple[int, int], float] = {}

    def layer_parts(self, num_tokens: int) -> Parts:
        others = self._ask(num_tokens, 0, num_tokens, 0)[1]
        return {"non_attention": others / self._layers}

    def edge_parts(self, num_tokens: int) -> Parts:
        return {}

    def head_parts(self, num_samples: int) -> Parts:
        return {}

    def _collective_time(self, num_tokens: int) -> float:
        return 0.0

    def _gather_time(self, num_samples: int) -> float:
        return 0.0

    def attention(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        seconds = 0.0
        if num_decodes:
            mean = decode_context / num_decodes
            left = int(mean) // _BUCKET
            share = mean / _BUCKET - left
            seconds += (1.0 - share) * self._decode(num_decodes, left)
            seconds += share * self._decode(num_decodes, left + 1)
        if prefills:
            chunk = sum(query for query, _ in prefills)
            cached = sum(context for _, context in prefills) // len(prefills)
            seconds += self._prompt(chunk, len(prefills), cached)
        return seconds / self._layers

    def _decode(self, rows: int, bucket: int) -> float:
        key = (rows, bucket)
        if key not in self._decodes:
            self._decodes[key] = self._ask(1, rows, max(1, bucket * _BUCKET), 0)[3]
        return self._decodes[key]

    def _prompt(self, chunk: int, rows: int, cached: int) -> float:
        key = (chunk, rows, cached)
        if key not in self._prompts:
            query = max(1, chunk // rows)
            self._prompts[key] = self._ask(chunk, 0, query + cached, cached)[2]
        return self._prompts[key]

    def _ask(self, chunk: int, rows: int, length: int, cached: int) -> tuple[float, ...]:
        """Seconds (all, all but attention, prompt attention, decode attention) of a mixed step."""
        try:
            answer = self._engine.mixed_step_breakdown(chunk, rows, length, 2, cached)
        except Exception as error:
            raise CostModelError(
                f"aiconfigurator cannot price {chunk} prompt tokens and {rows} decodes at length"
                f" {length}: {error}"
            ) from error
        return tuple(milliseconds * 1e-3 for milliseconds in answer)


def _folder(model: ModelConfig) -> str:
    if model.path is None:
        return model.name
    path = Path(model.path)
    return str(path.parent if path.is_file() else path)


def _compile(
    model_path: str,
    system: str,
    framework: str,
    version: str | None,
    parallel: ParallelConfig,
    has_experts: bool,
) -> Any:
    try:
        from aiconfigurator_core.sdk import EngineHandle
    except ImportError:
        raise ConfigError(
            "cost_model=aiconfigurator needs the package aiconfigurator-core:"
            " pip install 'aiconfigurator-core>=0.12' (the extra [silicon])"
        ) from None
    group = parallel.expert_group_size if has_experts else 1
    whole = parallel.enable_expert_parallel
    try:
        return EngineHandle.compile(
            model_path,
            system,
            framework,
            backend_version=version,
            tp_size=parallel.tensor_parallel_size,
            pp_size=parallel.pipeline_parallel_size,
            attention_dp_size=parallel.data_parallel_size if has_experts else 1,
            moe_tp_size=1 if whole else group,
            moe_ep_size=group if whole else 1,
        )
    except Exception as error:
        raise ConfigError(
            f"aiconfigurator cannot build {model_path} on {system} with {framework}"
            f" {version or '(newest)'}: {error}"
        ) from error
