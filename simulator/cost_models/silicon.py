"""Step times from aiconfigurator-core, whose tables cover more systems than ship with a checkout.

An optional extra: `pip install llm-serving-workbench[silicon]`. Its compiled engine is asked for
three things, which are kept: everything but attention for a number of tokens, prompt attention for
(chunk, context), and decode attention for (rows, mean context), interpolated between multiples of
64 tokens. Collectives and experts are in the first. It extrapolates by itself and does not say
when, so no step counts as extrapolated.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.cost_models.attention import Attention, Chunks
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.cost_models.transformer import LayerParts, Parts, Pieces, TransformerCostModel
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


@dataclass(eq=False, repr=False)
class SiliconCostModel(TransformerCostModel):
    """Parts, attention and collectives as aiconfigurator-core prices them.

    Args:
        system: Its name of the GPU; None: that of `hardware`.
        framework: "vllm", "sglang" or "trtllm".
        version: Of the framework; None: the newest it has.
        model_path: A Hugging Face name it knows, or a folder with config.json; None: the model's.
        all_reduce: Must be None: the package has its own.

    Raises:
        ConfigError: The package is missing, or does not know the system or the model.
    """

    system: str | None = None
    framework: str = "vllm"
    version: str | None = None
    model_path: str | None = None

    def _build(self, constants: KernelConstants) -> Pieces:
        if self.all_reduce is not None:
            raise ConfigError(
                f"cost_model.all_reduce={self.all_reduce} is not read by cost_model=aiconfigurator,"
                " which has its own collectives: leave it null"
            )
        system = self.system or SYSTEMS.get(self.hardware.name)
        if system is None:
            raise ConfigError(
                f"hardware {self.hardware.name} has no system in aiconfigurator: choose one of"
                f" {', '.join(SYSTEMS)}, or set cost_model.system"
            )
        where = self.model_path or _folder(self.model)
        has_experts = bool(self.model.num_experts)
        engine = Engine(
            _compile(where, system, self.framework, self.version, self.parallel, has_experts),
            self.model.num_hidden_layers,
        )

        def attention(window: int | None) -> Attention:
            return SiliconAttention(engine, window)

        return Pieces(SiliconParts(engine), attention, None)


class Engine:
    """The compiled engine, asked for one layer.

    Args:
        handle: Of aiconfigurator-core.
        num_layers: Layers that its answers are divided by.
    """

    def __init__(self, handle: Any, num_layers: int) -> None:
        self._handle = handle
        self._layers = num_layers

    def ask(self, chunk: int, rows: int, length: int, cached: int) -> tuple[float, ...]:
        """Seconds a layer (all, all but attention, prompt attention, decode attention) of a step.

        Raises:
            CostModelError: The package refuses.
        """
        try:
            answer = self._handle.mixed_step_breakdown(chunk, rows, length, 2, cached)
        except Exception as error:
            raise CostModelError(
                f"aiconfigurator cannot price {chunk} prompt tokens and {rows} decodes at length"
                f" {length}: {error}"
            ) from error
        return tuple(milliseconds * 1e-3 / self._layers for milliseconds in answer)


class SiliconParts(LayerParts):
    """Everything but attention, embedding, head and collectives included."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def layer(self, num_tokens: int) -> Parts:
        return {"non_attention": self._engine.ask(num_tokens, 0, num_tokens, 0)[1]}

    def edge(self, num_tokens: int) -> Parts:
        return {}

    def head(self, num_samples: int) -> Parts:
        return {}


class SiliconAttention(Attention):
    """Attention by mean lengths; answers are kept.

    Args:
        engine: Answers.
        window: Longest context that is asked for; None: any.
    """

    def __init__(self, engine: Engine, window: int | None) -> None:
        self._engine, self._window = engine, window
        self._prompts: dict[tuple[int, int, int], float] = {}
        self._decodes: dict[tuple[int, int], float] = {}

    def time(self, num_decodes: int, decode_context: int, prefills: Chunks) -> float:
        seconds = 0.0
        if num_decodes:
            mean = self._seen(decode_context / num_decodes)
            left = int(mean) // _BUCKET
            share = mean / _BUCKET - left
            seconds += (1.0 - share) * self._decode(num_decodes, left)
            if share:
                seconds += share * self._decode(num_decodes, left + 1)
        if prefills:
            chunk = sum(query for query, _ in prefills)
            cached = sum(context for _, context in prefills) / len(prefills)
            seconds += self._prompt(chunk, len(prefills), int(self._seen(cached)))
        return seconds

    def _seen(self, context: float) -> float:
        return context if self._window is None else min(context, self._window)

    def _decode(self, rows: int, bucket: int) -> float:
        key = (rows, bucket)
        if key not in self._decodes:
            self._decodes[key] = self._engine.ask(1, rows, max(1, bucket * _BUCKET), 0)[3]
        return self._decodes[key]

    def _prompt(self, chunk: int, rows: int, cached: int) -> float:
        key = (chunk, rows, cached)
        if key not in self._prompts:
            query = max(1, chunk // rows)
            self._prompts[key] = self._engine.ask(chunk, 0, query + cached, cached)[2]
        return self._prompts[key]


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
