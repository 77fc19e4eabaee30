"""The output processor alone: what it is told step by step, and what it makes of it."""

from dataclasses import replace

from engine.input_processor import ProcessedInput
from engine.output_processor import OutputProcessor
from tests.engine.scripted_core import EOS, Letters, letters_decoder
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request, RequestStatus
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.token_logprobs import PromptLogprobs, TokenLogprobs

FINAL = RequestOutputKind.FINAL_ONLY
NOTHING = EngineCoreOutputs()


def source(**params: object) -> ProcessedInput:
    given = SamplingParams(**({"output_kind": FINAL} | params))  # type: ignore[arg-type]
    return ProcessedInput("ab", [97, 98], given, replace(given, n=1), frozenset({EOS}), EOS, 50)


def added(
    asked: ProcessedInput, count: int = 1, request_id: str = "ask"
) -> tuple[OutputProcessor, list[Request]]:
    processor = OutputProcessor(letters_decoder, Letters())
    requests = [Request(f"{index}_{request_id}", 2, 50) for index in range(count)]
    processor.add_request(request_id, asked, requests)
    return processor, requests


def grow(request: Request, text: str, status: RequestStatus | None = None) -> None:
    """Append tokens as the core does, and perhaps end the request."""
    request.output_token_ids += map(ord, text)
    request._num_output_tokens = len(request.output_token_ids)
    if status is not None:
        request.status = status


def tokens_of(request: Request) -> EngineCoreOutputs:
    """The outputs of a step that gave the request all that it has, and perhaps its end."""
    finished = [request] if request.is_finished else []
    return EngineCoreOutputs([request], [request.output_token_ids], finished)


def test_answers_nobody_watches_are_read_at_the_end_only() -> None:
    processor, (request,) = added(source())
    grow(request, "hel")
    assert processor.process(ModelRunnerOutput(), NOTHING) == ([], [])
    grow(request, "lo", RequestStatus.FINISHED_LENGTH_CAPPED)
    (output,), stopped = processor.process(None, EngineCoreOutputs(finished=[request]))
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("hello", "length")
    assert output.finished
    assert not stopped
    assert processor.num_unfinished_requests == 0


def test_a_stop_string_in_the_middle_of_several_tokens_drops_the_rest() -> None:
    processor, (request,) = added(source(stop=["lo"], logprobs=0))
    grow(request, "hello!")
    logprobs = [TokenLogprobs([ord(c)], [-1.0], 1) for c in "hello!"]
    output = ModelRunnerOutput(logprobs={request.request_id: logprobs})
    (given,), stopped = processor.process(output, tokens_of(request))
    assert stopped == [request.request_id]
    (answer,) = given.outputs
    assert (answer.text, answer.token_ids) == ("hel", [*b"hello"])
    assert len(answer.logprobs or ()) == 5
    assert answer.cumulative_logprob == -5.0


def test_a_stop_string_wins_over_the_length_that_comes_with_it() -> None:
    processor, (request,) = added(source(stop=["lo"]))
    grow(request, "hello", RequestStatus.FINISHED_LENGTH_CAPPED)
    (given,), stopped = processor.process(None, tokens_of(request))
    assert (given.outputs[0].finish_reason, given.outputs[0].stop_reason) == ("stop", "lo")
    assert stopped == [request.request_id]


def test_tokens_that_come_after_the_end_are_nobodys() -> None:
    processor, (request,) = added(source(stop=["l"]))
    grow(request, "hel")
    processor.process(None, tokens_of(request))
    grow(request, "lo", RequestStatus.FINISHED_ABORTED)
    late = ModelRunnerOutput(
        logprobs={request.request_id: [TokenLogprobs([1], [-1.0], 1)]},
        prompt_logprobs={request.request_id: PromptLogprobs(1, [TokenLogprobs([1], [-1.0], 1)])},
    )
    assert processor.process(late, EngineCoreOutputs(finished=[request])) == ([], [])


def test_logprobs_may_run_ahead_of_the_tokens_that_are_kept() -> None:
    processor, (request,) = added(source(logprobs=0))
    logprobs = [TokenLogprobs([ord(c)], [-1.0], 1) for c in "abcd"]
    grow(request, "ab", RequestStatus.FINISHED_LENGTH_CAPPED)
    output = ModelRunnerOutput(logprobs={request.request_id: logprobs})
    (given,), _ = processor.process(output, EngineCoreOutputs(finished=[request]))
    assert [next(iter(each)) for each in given.outputs[0].logprobs or ()] == [97, 98]
    assert given.outputs[0].cumulative_logprob == -2.0


def test_n_answers_wait_for_the_last_one_in_order_of_their_index() -> None:
    processor, (first, second) = added(source(n=2), 2)
    grow(second, "two", RequestStatus.FINISHED_LENGTH_CAPPED)
    assert processor.process(None, EngineCoreOutputs(finished=[second])) == ([], [])
    grow(first, "one", RequestStatus.FINISHED_LENGTH_CAPPED)
    (output,), _ = processor.process(None, EngineCoreOutputs(finished=[first]))
    assert [answer.text for answer in output.outputs] == ["one", "two"]


def test_a_prompt_computed_twice_is_told_once() -> None:
    processor, (request,) = added(source(prompt_logprobs=0))
    run = PromptLogprobs(1, [TokenLogprobs([98], [-1.0], 4)])
    for _ in range(2):
        output = ModelRunnerOutput(prompt_logprobs={request.request_id: run})
        processor.process(output, NOTHING)
    grow(request, "x", RequestStatus.FINISHED_LENGTH_CAPPED)
    (given,), _ = processor.process(None, EngineCoreOutputs(finished=[request]))
    assert given.prompt_logprobs is not None
    assert [position and next(iter(position)) for position in given.prompt_logprobs] == [None, 98]


def test_an_aborted_answer_keeps_what_it_has() -> None:
    processor, (request,) = added(source())
    grow(request, "hel")
    (output,), core_ids = processor.abort_requests(["ask", "unknown"])
    assert core_ids == [request.request_id]
    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("hel", "abort")
    assert "ask" not in processor


def test_answers_have_no_text_without_a_tokenizer() -> None:
    processor = OutputProcessor()
    request = Request("0", 2, 50)
    processor.add_request("0", source(logprobs=0), [request])
    grow(request, "hi", RequestStatus.FINISHED_STOPPED)
    (output,), _ = processor.process(None, EngineCoreOutputs(finished=[request]))
    assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", [*b"hi"])
