"""The engine step by step: streaming, ends, preemption and failures, around a script."""

from itertools import chain, pairwise
from typing import Any

import pytest

from engine.outputs import CompletionOutput, RequestOutput
from tests.engine.scripted_answers import ASYNC, DELTA, FINAL, answer, drain
from tests.engine.scripted_core import EOS, by_prompt, scripted_engine, spell
from workbench.outputs import NewRequestData
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.token_logprobs import TokenLogprobs


@ASYNC
def test_the_end_of_sequence_ends_an_answer_and_is_not_shown(is_async: bool) -> None:
    done = answer(scripted_engine(spell("hello"), is_async=is_async))
    assert done == CompletionOutput(0, "hello", [*b"hello", EOS], finish_reason="stop")


@ASYNC
def test_a_stop_token_is_named(is_async: bool) -> None:
    done = answer(scripted_engine(spell("hello"), is_async=is_async), stop_token_ids=[ord("l")])
    assert (done.text, done.finish_reason, done.stop_reason) == ("he", "stop", ord("l"))
    assert done.token_ids == [*b"hel"]


def test_further_end_tokens_of_the_model_are_named_as_stop_tokens() -> None:
    done = answer(scripted_engine(lambda request, count: 198 if count == 2 else 65))
    assert (done.text, done.finish_reason, done.stop_reason) == ("AA", "stop", 198)


@ASYNC
@pytest.mark.parametrize(("include", "text"), [(False, "he"), (True, "hell")])
def test_a_stop_string_ends_an_answer_across_tokens(
    is_async: bool, include: bool, text: str
) -> None:
    done = answer(
        scripted_engine(spell("hello"), is_async=is_async),
        stop="ll",
        include_stop_str_in_output=include,
    )
    assert (done.text, done.finish_reason, done.stop_reason) == (text, "stop", "ll")
    assert done.token_ids == [*b"hell"]


def test_a_stop_string_ends_the_request_in_the_core_too() -> None:
    engine = scripted_engine(spell("hello" * 9))
    engine.add_request("r", "p", SamplingParams(stop="lo", max_tokens=40))
    outputs: list[RequestOutput] = []
    while not any(output.finished for output in outputs):
        outputs = engine.step()
    assert engine.core.scheduler.num_unfinished_requests == 0
    assert len(outputs[0].outputs[0].token_ids) == 5


def test_the_stop_token_is_shown_if_asked_for() -> None:
    done = answer(scripted_engine(spell("hi")), include_stop_str_in_output=True)
    assert done.text == "hi$"


@ASYNC
def test_length_ends_an_answer(is_async: bool) -> None:
    done = answer(scripted_engine(spell("hello"), is_async=is_async), max_tokens=3)
    assert (done.text, done.finish_reason, done.stop_reason) == ("hel", "length", None)


def test_ignore_eos_goes_on() -> None:
    done = answer(scripted_engine(spell("ab")), ignore_eos=True, max_tokens=7)
    assert (done.text, done.finish_reason) == ("ab$ab$a", "length")


def test_the_context_ends_an_answer() -> None:
    done = answer(scripted_engine(spell("x" * 99)), prompt="p" * 60, max_tokens=None)
    assert (len(done.token_ids), done.finish_reason) == (4, "length")


def test_stop_strings_wait_for_min_tokens() -> None:
    done = answer(scripted_engine(spell("ababab")), stop="b", min_tokens=3)
    assert (done.text, done.stop_reason) == ("aba", "b")


def test_no_text_without_detokenize() -> None:
    done = answer(scripted_engine(spell("hello")), detokenize=False, logprobs=1)
    assert (done.text, done.token_ids) == ("", [*b"hello", EOS])
    assert done.logprobs is not None
    assert done.logprobs[0][ord("h")].decoded_token is None


@ASYNC
def test_streams_add_up(is_async: bool) -> None:
    engine = scripted_engine(spell("hello world"), is_async=is_async)
    for kind in (RequestOutputKind.CUMULATIVE, DELTA, FINAL):
        params = SamplingParams(output_kind=kind, stop="rld", logprobs=0, max_tokens=20)
        engine.add_request(kind.name, "prompt", params)
    seen: dict[str, list[CompletionOutput]] = {}
    for output in drain(engine):
        seen.setdefault(output.request_id, []).extend(output.outputs)
    (final,) = seen["FINAL_ONLY"]
    assert final.text == "hello wo"
    assert len(final.token_ids) == len(final.logprobs or ()) == 11
    assert final.cumulative_logprob == pytest.approx(-0.5 * 11)
    assert seen["CUMULATIVE"][-1] == final
    texts = [each.text for each in seen["CUMULATIVE"]]
    assert len(texts) == 11
    assert all(b.startswith(a) for a, b in pairwise(texts))
    assert "".join(each.text for each in seen["DELTA"]) == final.text
    assert list(chain(*[each.token_ids for each in seen["DELTA"]])) == final.token_ids
    assert list(chain(*[each.logprobs or [] for each in seen["DELTA"]])) == final.logprobs


@ASYNC
def test_answers_nobody_watches_come_at_the_end_in_any_order(is_async: bool) -> None:
    texts = {65: "one", 66: "three is longer", 67: "two"}
    engine = scripted_engine(by_prompt(texts), is_async=is_async, max_num_seqs=2)
    params = SamplingParams(output_kind=FINAL, max_tokens=30)
    for token_id in texts:
        engine.add_request(str(token_id), [token_id, 1], params)
    outputs = drain(engine)
    assert {output.request_id: output.outputs[0].text for output in outputs} == {
        str(token_id): text for token_id, text in texts.items()
    }
    assert all(output.prompt_token_ids == [int(output.request_id), 1] for output in outputs)
    assert engine.core.scheduler.num_unfinished_requests == 0


@ASYNC
def test_a_nan_ends_its_request_with_an_error_and_no_other_one(is_async: bool) -> None:
    def script(request: NewRequestData, count: int) -> int:
        return -1 if request.request_id == "1" and count == 2 else 65 + count

    engine = scripted_engine(script, is_async=is_async)
    for request_id in "012":
        engine.add_request(request_id, "p", SamplingParams(max_tokens=5, output_kind=FINAL))
    outputs = {output.request_id: output.outputs[0] for output in drain(engine)}
    assert outputs["1"].finish_reason == "error"
    assert outputs["1"].stop_reason == "the logits are not a number"
    assert outputs["1"].text == "AB"
    assert {outputs[i].text for i in "02"} == {"ABCDE"}


def test_a_request_that_outgrows_the_cache_ends_with_an_error() -> None:
    engine = scripted_engine(spell("x" * 60), num_blocks=4)
    engine.add_request("big", "p" * 8, SamplingParams(max_tokens=50, output_kind=FINAL))
    engine.add_request("small", "p", SamplingParams(max_tokens=3, output_kind=FINAL))
    outputs = {output.request_id: output.outputs[0] for output in drain(engine)}
    assert outputs["big"].finish_reason == "error"
    assert (outputs["small"].text, outputs["small"].finish_reason) == ("xxx", "length")


@ASYNC
def test_prompt_logprobs_are_whole_however_the_prompt_is_chunked(is_async: bool) -> None:
    engine = scripted_engine(spell("ab"), is_async=is_async, max_num_batched_tokens=5)
    for request_id in ("first", "again"):
        params = SamplingParams(prompt_logprobs=1, n=2, output_kind=FINAL)
        engine.add_request(request_id, "prompt is long", params)
        (output,) = drain(engine)
        told = output.prompt_logprobs
        assert told is not None
        assert told[0] is None
        ids = [next(iter(position)) for position in told[1:] if position is not None]
        assert ids == output.prompt_token_ids[1:]
        assert told[1] is not None
        assert told[1][ord("r")].decoded_token == "r"


@ASYNC
@pytest.mark.parametrize("stop", [(), ("zz",)])
def test_preemption_changes_no_answer(is_async: bool, stop: tuple[str, ...]) -> None:
    engine = scripted_engine(
        lambda request, count: 65 + (int(request.request_id) * 7 + count) % 26,
        is_async=is_async,
        num_blocks=8,
        scheduler_reserve_full_isl=False,
    )
    for request_id in range(4):
        params = SamplingParams(max_tokens=14, output_kind=FINAL, logprobs=0, stop=stop)
        engine.add_request(str(request_id), "p" * 3, params)
    outputs = drain(engine)
    assert engine.core.scheduler.num_preemptions > 0
    for output in outputs:
        number = int(output.request_id)
        expected = [65 + (number * 7 + count) % 26 for count in range(14)]
        assert output.outputs[0].token_ids == expected
        assert [next(iter(each)) for each in output.outputs[0].logprobs or ()] == expected


def test_the_prompt_of_a_request_with_nan_has_no_log_probabilities() -> None:
    engine = scripted_engine(spell("ab"))
    executor: Any = engine.core.executor
    sample = executor.sample_tokens

    def sample_nan(grammar_output: Any) -> Any:
        pending = sample(grammar_output)
        nan = TokenLogprobs([114, 0], [float("nan")] * 2, 0)
        for told in pending.result().prompt_logprobs.values():
            told.tokens[0] = nan
        return pending

    executor.sample_tokens = sample_nan
    engine.add_request("r", "prompt", SamplingParams(prompt_logprobs=1, output_kind=FINAL))
    (output,) = drain(engine)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[:2] == [None, None]
    assert output.prompt_logprobs[2] is not None


def test_metrics_follow_the_clock_of_the_core() -> None:
    engine = scripted_engine(spell("abc"))
    engine.add_request("r", "p", SamplingParams(output_kind=FINAL), arrival_time=-5.0)
    (output,) = drain(engine)
    metrics = output.metrics
    assert metrics is not None
    assert metrics.arrival_time == -5.0
    assert metrics.scheduled_ts is not None
    assert metrics.first_token_ts is not None
    assert metrics.last_token_ts is not None
    assert metrics.scheduled_ts < metrics.first_token_ts < metrics.last_token_ts
    assert metrics.first_token_latency == metrics.first_token_ts + 5.0
    assert metrics.num_generation_tokens == 4
