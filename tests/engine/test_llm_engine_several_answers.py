"""Requests with several answers: one output, seeds in a row, shared blocks, one abort for all."""

import pytest

from engine.errors import InputError
from tests.engine.scripted_answers import ASYNC, DELTA, FINAL, drain
from tests.engine.scripted_core import EOS, scripted_engine, spell
from workbench.outputs import NewRequestData
from workbench.sampling_params import SamplingParams


@ASYNC
def test_n_answers_are_one_output_and_share_the_prompts_blocks(is_async: bool) -> None:
    def script(request: NewRequestData, count: int) -> int:
        return EOS if count > int(request.request_id[0]) else 97 + int(request.request_id[0])

    engine = scripted_engine(script, is_async=is_async)
    params = SamplingParams(n=3, seed=5, output_kind=FINAL, prompt_logprobs=None)
    engine.add_request("ask", "p" * 9, params)
    (output,) = drain(engine)
    assert output.request_id == "ask"
    assert [(each.index, each.text) for each in output.outputs] == [(0, "a"), (1, "bb"), (2, "ccc")]
    assert output.metrics is not None
    assert output.metrics.num_generation_tokens == 9


def test_answers_take_seeds_in_a_row_and_blocks_of_the_first() -> None:
    seen: dict[str, NewRequestData] = {}

    def script(request: NewRequestData, count: int) -> int:
        seen[request.request_id] = request
        return 65

    engine = scripted_engine(script)
    params = SamplingParams(n=3, seed=5, max_tokens=2, output_kind=FINAL)
    engine.add_request("ask", "p" * 9, params)
    drain(engine)
    sampling = [request.sampling_params for request in seen.values()]
    assert [each and each.seed for each in sampling] == [5, 6, 7]
    assert [request.num_computed_tokens for request in seen.values()] == [0, 8, 8]
    alone = scripted_engine(script, cache={"enable_prefix_caching": False})
    alone.add_request("ask", "p" * 9, params)
    drain(alone)
    assert [request.num_computed_tokens for request in seen.values()] == [0, 0, 0]


def test_a_stream_of_n_answers_tells_what_is_new() -> None:
    engine = scripted_engine(spell("ab"))
    engine.add_request("ask", "p", SamplingParams(n=2, output_kind=DELTA))
    outputs = drain(engine)
    assert [len(output.outputs) for output in outputs] == [2, 2, 2]
    assert [output.finished for output in outputs] == [False, False, True]
    assert "".join(output.outputs[1].text for output in outputs) == "ab"


@ASYNC
def test_an_abort_ends_all_answers_and_nothing_comes_after_it(is_async: bool) -> None:
    engine = scripted_engine(spell("x" * 50), is_async=is_async)
    engine.add_request("ask", "p", SamplingParams(n=2, max_tokens=40))
    engine.add_request("other", "p", SamplingParams(max_tokens=9, output_kind=FINAL))
    for _ in range(4):
        engine.step()
    (last,) = engine.abort_request("ask")
    assert last.finished
    assert [each.finish_reason for each in last.outputs] == ["abort", "abort"]
    assert last.outputs[0].text.startswith("x")
    assert engine.abort_request(["ask", "unknown"]) == []
    (other,) = drain(engine)
    assert (other.request_id, other.outputs[0].text) == ("other", "x" * 9)
    assert engine.num_unfinished_requests == 0


def test_an_id_that_another_requests_answer_has_is_refused() -> None:
    engine = scripted_engine(spell("ab"))
    engine.add_request("1_ask", "p", SamplingParams(output_kind=FINAL))
    with pytest.raises(InputError, match="request_id='ask' is in use"):
        engine.add_request("ask", "p", SamplingParams(n=2))
    (output,) = drain(engine)
    assert output.outputs[0].text == "ab"
