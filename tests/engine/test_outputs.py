"""Records that users get: their names are vLLM's."""

from engine.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput


def test_an_answer_has_ended_when_it_says_why() -> None:
    answer = CompletionOutput(0, "text", [1])
    assert not answer.finished()
    answer.finish_reason = "length"
    assert answer.finished()


def test_the_first_tokens_latency_counts_from_arrival() -> None:
    assert RequestMetrics(arrival_time=2.0).first_token_latency is None
    assert RequestMetrics(arrival_time=2.0, first_token_ts=5.0).first_token_latency == 3.0


def test_records_show_and_compare_by_value() -> None:
    output = RequestOutput("id", "p", [1], None, [CompletionOutput(0, "t", [2])], True)
    assert output == RequestOutput("id", "p", [1], None, [CompletionOutput(0, "t", [2])], True)
    assert "request_id='id'" in repr(output)
    assert Logprob(-1.0) == Logprob(-1.0, None, None)
