"""Variables of a chat's template that a request gives twice."""

import pytest

from tests.engine.server.serving import serving

TEMPLATE = "«{{ reasoning_effort }}»"


@pytest.mark.parametrize(("field", "effort"), [({"reasoning_effort": "low"}, "low"), ({}, "high")])
def test_a_field_goes_before_the_variable_of_its_name(field: dict[str, str], effort: str) -> None:
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "chat_template": TEMPLATE,
        "chat_template_kwargs": {"reasoning_effort": "high"},
        "max_tokens": 20,
    }
    with serving({"allow_chat_template": True}) as server:
        status, answer = server.post("/v1/chat/completions", body | field)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == effort
