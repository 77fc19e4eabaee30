"""The real engine: transformer models behind the workbench's scheduler.

`from engine import LLM, SamplingParams` is all that most programs need. Names are resolved when
they are asked for, so that importing this package imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.async_llm import AsyncLLM
    from engine.config import EngineConfig
    from engine.llm import LLM
    from engine.llm_engine import LLMEngine
    from engine.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
    from workbench.sampling_params import RequestOutputKind, SamplingParams
    from workbench.structured_outputs_params import StructuredOutputsParams

__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "EngineConfig",
    "LLMEngine",
    "Logprob",
    "RequestMetrics",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
]

_MODULES = {
    "LLM": "engine.llm",
    "AsyncLLM": "engine.async_llm",
    "LLMEngine": "engine.llm_engine",
    "EngineConfig": "engine.config",
    "CompletionOutput": "engine.outputs",
    "Logprob": "engine.outputs",
    "RequestMetrics": "engine.outputs",
    "RequestOutput": "engine.outputs",
    "RequestOutputKind": "workbench.sampling_params",
    "SamplingParams": "workbench.sampling_params",
    "StructuredOutputsParams": "workbench.structured_outputs_params",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
