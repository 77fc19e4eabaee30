"""Several prompts with several answers each, streamed: every stream is whole."""

from typing import Any

from tests.engine.server.serving import serving

PROMPTS = ["say «a»", "say «a longer answer»"]
ASKED = {"prompt": PROMPTS, "n": 2, "max_tokens": 64, "temperature": 0}


def _texts(events: list[Any]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def test_a_prompt_whose_answers_end_first_does_not_end_the_others() -> None:
    with serving() as server:
        status, whole = server.post("/v1/completions", ASKED)
        events = server.stream(
            "/v1/completions", ASKED | {"stream_options": {"include_usage": True}}
        )
    assert status == 200
    assert events.pop() == "[DONE]"
    assert _texts(events) == {choice["index"]: choice["text"] for choice in whole["choices"]}
    ends = [c["index"] for e in events for c in e["choices"] if c["finish_reason"] is not None]
    assert sorted(ends) == [0, 1, 2, 3]
    usage = events[-1]["usage"]
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"]
