"""Requests and models that the engine refuses, and what is left of them: nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import InputError, ModelLoadError
from engine.llm_engine import LLMEngine
from tests.engine.checkpoints import make_checkpoint
from tests.engine.scripted_answers import FINAL, drain
from tests.engine.scripted_core import scripted_engine, spell
from workbench.request import Request
from workbench.sampling_params import SamplingParams


def test_a_request_that_cannot_be_served_is_refused_and_leaves_nothing() -> None:
    engine = scripted_engine(spell("a"), num_blocks=2)
    with pytest.raises(InputError, match="exceeds the whole KV cache of 2 blocks of 4 tokens"):
        engine.add_request("big", "p" * 20, SamplingParams())
    assert not engine.has_unfinished_requests()
    engine.add_request("same", "p", SamplingParams())
    with pytest.raises(InputError, match="request_id='same' is in use"):
        engine.add_request("same", "p", SamplingParams())
    assert len(drain(engine)) > 0


def test_a_priority_is_a_whole_number() -> None:
    engine: Any = scripted_engine(spell("a"), policy="priority")
    with pytest.raises(InputError, match="priority='x' must be a whole number"):
        engine.add_request("r", "p", priority="x")
    assert not engine.has_unfinished_requests()


def test_a_request_that_the_core_fails_to_add_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = scripted_engine(spell("ab"))
    add, core = engine.core.add_request, engine.core

    def fail_at_the_second(request: Request) -> bool:
        if request.request_id == "1_ask":
            raise RuntimeError("no room")
        return add(request)

    monkeypatch.setattr(core, "add_request", fail_at_the_second)
    params = SamplingParams(n=2, output_kind=FINAL)
    with pytest.raises(RuntimeError, match="no room"):
        engine.add_request("ask", "p", params)
    assert engine.num_unfinished_requests == 0
    assert engine.core.scheduler.num_unfinished_requests == 0
    monkeypatch.undo()
    engine.add_request("ask", "p", params)
    (output,) = drain(engine)
    assert [each.text for each in output.outputs] == ["ab", "ab"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{", "is not valid JSON"),
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
        ({"rope_parameters": "x"}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "does not describe"),
        ({"vocab_size": "x"}, "'vocab_size' expected int"),
    ],
)
def test_a_broken_config_is_not_blamed_on_the_tokenizer(
    tmp_path: Path, broken: str | dict[str, Any], message: str
) -> None:
    make_checkpoint(tmp_path)
    config = tmp_path / "config.json"
    if isinstance(broken, dict):
        broken = json.dumps(json.loads(config.read_text()) | broken)
    config.write_text(broken)
    with pytest.raises(ModelLoadError, match=message) as caught:
        LLMEngine.from_config(EngineConfig(model=str(tmp_path), device="cpu"))
    assert "tokenizer" not in str(caught.value)
