"""An engine around a script, run until nobody waits."""

from typing import Any

import pytest

from engine.llm_engine import LLMEngine
from engine.outputs import CompletionOutput, RequestOutput
from workbench.sampling_params import RequestOutputKind, SamplingParams

FINAL = RequestOutputKind.FINAL_ONLY
DELTA = RequestOutputKind.DELTA
ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def drain(engine: LLMEngine) -> list[RequestOutput]:
    """The outputs of every step until nobody waits."""
    outputs = []
    while engine.has_unfinished_requests():
        outputs += engine.step()
    return outputs


def answer(engine: LLMEngine, prompt: str = "p", **params: Any) -> CompletionOutput:
    """The one answer to one prompt."""
    params = {"max_tokens": 20, "output_kind": FINAL} | params
    engine.add_request("only", prompt, SamplingParams(**params))
    (output,) = drain(engine)
    assert output.finished
    (completion,) = output.outputs
    return completion
