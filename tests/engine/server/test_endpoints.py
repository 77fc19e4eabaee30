"""The endpoints beside the two big ones, and what stands around all of them."""

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from engine.server.body import LARGE
from engine.server.schemas.chat import ChatCompletionResponse
from engine.server.schemas.completion import CompletionResponse
from engine.server.schemas.tokenization import DetokenizeRequest
from engine.server.settings import ServerSettings
from engine.server.tokenization import Tokenization
from tests.engine.served import ids_of
from tests.engine.server.serving import MODEL, RunningServer, serving
from workbench.errors import ConfigError


def joined(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


USER = {"role": "user", "content": "hi"}


def test_probes(server: RunningServer) -> None:
    for path in ("/health", "/ping"):
        assert server.request("GET", path)[::2] == (200, b"")
    assert server.request("POST", "/ping")[0] == 200
    assert server.get("/ready") == (200, {"status": "ready"})
    assert set(server.get("/version")[1]) == {"version"}


def test_load_counts_what_is_open() -> None:
    with serving(step_s=0.002) as server:
        _, idle = server.get("/load")
        connection = server.open("/v1/completions", {"prompt": "a" * 100, "max_tokens": 1900})
        server.wait_for(lambda: server.state.num_running == 1)
        _, busy = server.get("/load")
        connection.close()
        server.wait_for(lambda: server.llm.num_unfinished_requests == 0)
        assert server.get("/load")[1]["num_outstanding_tokens"] == 0
    assert idle == {
        "server_load": 0,
        "num_running": 0,
        "num_waiting": 0,
        "num_outstanding_tokens": 0,
        "kv_cache_usage": 0.0,
        "is_draining": False,
        "world": "engine",
    }
    assert (busy["server_load"], busy["num_running"], busy["num_waiting"]) == (1, 1, 0)
    assert 0 < busy["num_outstanding_tokens"] <= 2000
    assert 0 < busy["kv_cache_usage"] < 1


def test_models(server: RunningServer) -> None:
    _, answer = server.get("/v1/models")
    assert [card["id"] for card in answer["data"]] == [MODEL, "alias"]
    assert answer["data"][0]["max_model_len"] == 2048
    assert server.get("/v1/models/alias")[1]["id"] == "alias"


def test_tokenize_and_back(server: RunningServer) -> None:
    _, answer = server.post("/tokenize", {"prompt": "héy", "return_token_strs": True})
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"]) == 4
    assert server.post("/detokenize", {"tokens": answer["tokens"]}) == (200, {"prompt": "héy"})
    _, chat = server.post("/tokenize", {"messages": [USER]})
    _, text = server.post("/detokenize", {"tokens": chat["tokens"]})
    assert text["prompt"].startswith("user: hi\nassistant:")


def test_long_answers_of_the_tokenizer_are_written_in_a_thread(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []
    strings = Tokenization._strings

    def watched(endpoint: Tokenization, token_ids: Sequence[int]) -> list[str]:
        places.append(threading.current_thread().name)
        return strings(endpoint, token_ids)

    monkeypatch.setattr(Tokenization, "_strings", watched)
    for length in (3, LARGE):
        body = {"prompt": "a" * length, "return_token_strs": True, "add_special_tokens": False}
        status, answer = server.post("/tokenize", body)
        assert (status, answer["count"], answer["token_strs"][-1]) == (200, length, "a")
    assert places[0] != places[1]


def test_very_many_tokens_become_text_in_slices(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    validate = DetokenizeRequest.model_validate_json

    def watched(data: bytes) -> Any:
        sizes.append(len(data))
        return validate(data)

    monkeypatch.setattr(DetokenizeRequest, "model_validate_json", watched)
    text = 'héy, "you"\n' * (LARGE // 4)
    tokens = list(ids_of('héy, "you"\n')) * (LARGE // 4)
    assert server.post("/detokenize", {"tokens": tokens}) == (200, {"prompt": text})
    status, answer = server.post("/detokenize", {"tokens": [*tokens, 999]})
    assert (status, answer["error"]["param"]) == (400, "tokens")
    assert "tokens holds 999" in answer["error"]["message"]
    status, answer = server.post("/detokenize", {"tokens": [*tokens, -1]})
    assert (status, answer["error"]["param"]) == (400, f"tokens.{len(tokens)}")
    # the list is left out of what is parsed in one go
    assert max(sizes) < 100


def test_prefix_cache_is_reset(server: RunningServer) -> None:
    body = {"prompt": "the same prefix again " * 4, "max_tokens": 1}
    cached = []
    for _ in range(2):
        _, answer = server.post("/v1/completions", body)
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert server.post("/reset_prefix_cache", {}) == (200, {"is_reset": True})
    _, answer = server.post("/v1/completions", body)
    assert cached[1] > 0
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_request_ids(server: RunningServer) -> None:
    _, headers, body = server.request(
        "POST", "/v1/completions", {"prompt": "a", "request_id": "own"}
    )
    assert json.loads(body)["id"] == "cmpl-own"
    assert headers["x-request-id"]
    # a header that could harm a log is replaced
    _, headers, body = server.request(
        "POST", "/v1/completions", {"prompt": "a"}, {"X-Request-Id": "a\tb"}
    )
    assert "\t" not in headers["x-request-id"]
    assert json.loads(body)["id"] == f"cmpl-{headers['x-request-id']}"


def test_the_same_request_id_twice_at_once(server: RunningServer) -> None:
    body = {"prompt": ["a", "b"], "max_tokens": 300, "ignore_eos": True, "request_id": "twin"}
    connections = [server.open("/v1/completions", body) for _ in range(3)]
    for connection in connections:
        assert b"200 OK" in connection.recv(4096)
        connection.close()


def test_prompt_without_special_tokens(server: RunningServer) -> None:
    body = {"prompt": "abc", "max_tokens": 2, "add_special_tokens": False, "return_token_ids": True}
    _, answer = server.post("/v1/completions", body)
    assert answer["choices"][0]["prompt_token_ids"] == [64, 65, 66]
    assert answer["choices"][0]["token_ids"] == [64, 65]


def test_a_truncated_prompt_leaves_room(server: RunningServer) -> None:
    body = {"prompt": "a" * 5000, "max_tokens": 48, "truncate_prompt_tokens": -1}
    _, answer = server.post("/v1/completions", body)
    assert answer["usage"]["prompt_tokens"] == 2000
    _, answer = server.post("/v1/completions", body | {"truncate_prompt_tokens": 7})
    assert answer["usage"]["prompt_tokens"] == 7


def test_streams_of_every_kind_agree_with_whole_answers(server: RunningServer) -> None:
    extras: list[dict[str, Any]] = [
        {},
        {"logprobs": 1, "n": 2},
        {"echo": True, "logprobs": 0},
        {"echo": True, "max_tokens": 0},
        {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 2},
        {"prompt": ["ab", "cd"]},
        {"stop": ["z"], "include_stop_str_in_output": True, "prompt": "xyz"},
    ]
    for extra in extras:
        body = {"prompt": "abc", "max_tokens": 5} | extra
        _, whole = server.post("/v1/completions", body)
        events = server.stream(
            "/v1/completions", body | {"stream_options": {"include_usage": True}}
        )
        assert events[-2]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
        for choice in whole["choices"]:
            mine = [
                event["choices"][0]
                for event in events[:-2]
                if event["choices"][0]["index"] == choice["index"]
            ]
            assert "".join(each["text"] for each in mine) == choice["text"]
            assert mine[-1]["finish_reason"] == choice["finish_reason"]
            assert mine[-1]["stop_reason"] == choice["stop_reason"]
            if choice["logprobs"] is not None:
                for column, values in choice["logprobs"].items():
                    assert joined(each["logprobs"][column] for each in mine) == values
            if choice["token_ids"] is not None:
                assert joined(each["token_ids"] for each in mine) == choice["token_ids"]
                assert mine[0]["prompt_token_ids"] == choice["prompt_token_ids"]


def test_a_message_is_continued_and_repeated(server: RunningServer) -> None:
    body = {
        "messages": [
            USER,
            {"role": "assistant", "content": "«more"},
        ],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "echo": True,
        "max_tokens": 3,
        "return_prompt_text": True,
    }
    _, whole = server.post("/v1/chat/completions", body)
    content = whole["choices"][0]["message"]["content"]
    assert content.startswith("«more")
    assert whole["prompt_text"].endswith("«more")
    events = server.stream("/v1/chat/completions", body)
    told = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(told) == content


def test_whole_answers_are_as_documented(server: RunningServer) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "ab", "logprobs": 2, "echo": True, "prompt_logprobs": 1, "n": 2},
    ]
    for body in bodies:
        CompletionResponse.model_validate(server.post("/v1/completions", body)[1])
    for extra in ({}, {"logprobs": True, "top_logprobs": 2, "prompt_logprobs": 0}):
        body = {"messages": [USER], "max_tokens": 4} | extra
        ChatCompletionResponse.model_validate(server.post("/v1/chat/completions", body)[1])


def test_every_status_is_documented(server: RunningServer) -> None:
    _, document = server.get("/openapi.json")
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        statuses = set(document["paths"][path]["post"]["responses"])
        assert statuses == {"200", "400", "401", "404", "413", "415", "500", "503"}
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(schemas)


def test_keys() -> None:
    with serving({"api_keys": ("first", "second")}) as server:
        for path in ("/health", "/ready", "/version", "/load", "/openapi.json"):
            assert server.get(path)[0] == 200
        for given in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "first"}):
            status, headers, body = server.request(
                "POST", "/v1/completions", {"prompt": "a"}, given
            )
            assert status == 401
            assert headers["www-authenticate"] == "Bearer"
            assert json.loads(body)["error"]["type"] == "AuthenticationError"
            assert server.request("GET", "/v1/models", headers=given)[0] == 401
            assert server.request("POST", "/reset_prefix_cache", headers=given)[0] == 401
        for key in ("first", "second"):
            headers = {"Authorization": f"Bearer {key}"}
            assert server.post("/v1/completions", {"prompt": "a"}, headers)[0] == 200


def test_pages_of_other_sites() -> None:
    asked = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    with serving({"allowed_origins": ("https://page.example",), "api_keys": ("k",)}) as server:
        status, headers, _ = server.request("OPTIONS", "/v1/completions", headers=asked)
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://page.example"
        # a refusal can be read by the page as well
        _, headers, _ = server.request(
            "POST", "/v1/completions", {"prompt": "a"}, {"Origin": "https://page.example"}
        )
        assert headers["access-control-allow-origin"] == "https://page.example"


def test_a_path_prefix_of_a_proxy() -> None:
    with serving({"root_path": "/llm", "api_keys": ("k",)}) as server:
        assert server.get("/health")[0] == 200
        assert server.get("/v1/models")[0] == 401
        status, _, body = server.request("GET", "/openapi.json")
        assert status == 200
        assert json.loads(body)["servers"] == [{"url": "/llm"}]


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with serving({"uds": path}) as server:
        assert server.url == f"unix:{path}"
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.request("GET", "/ready")
        assert connection.getresponse().read() == b'{"status":"ready"}'
        connection.close()


def test_a_template_of_the_request_where_it_is_allowed() -> None:
    body = {"messages": [USER], "chat_template": "«{{ word }}»", "max_tokens": 9}
    variables = {"chat_template_kwargs": {"word": "templated"}}
    with serving({"allow_chat_template": True}) as server:
        _, answer = server.post("/v1/chat/completions", body | variables | {"max_tokens": 20})
        assert answer["choices"][0]["message"]["content"] == "templated"
        bad = {"chat_template": "{{ ''.__class__.__mro__ }}{% for %}"}
        assert server.post("/v1/chat/completions", body | bad)[0] == 400


class Extra:
    """An extension with a path of its own."""

    open_paths = frozenset({"/extra"})

    def install(self, app: Any, llm: Any, settings: Any) -> None:
        def load() -> dict[str, int]:
            return {"load": app.state.server.server_load}

        app.add_api_route("/extra", load)
        app.add_api_route("/shut", load)


def test_extensions() -> None:
    with serving({"api_keys": ("k",)}, extensions=[Extra()]) as server:
        assert server.get("/extra") == (200, {"load": 0})
        assert server.get("/shut")[0] == 401


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"port": 70000}, "port=70000"),
        ({"port": "80"}, "port='80'"),
        ({"served_model_names": ()}, "served_model_names"),
        ({"api_keys": ("a b",)}, "api_key"),
        ({"ssl_keyfile": "k.pem"}, "ssl_certfile"),
        ({"enable_auto_tool_choice": True}, "tool_call_parser"),
        ({"log_level": "loud"}, "log_level"),
        ({"drain_timeout": -1.0}, "drain_timeout"),
        ({"max_core_silence": -1.0}, "max_core_silence"),
        ({"max_step_time": -1.0}, "max_step_time"),
        ({"restart_silence": 30.0}, "restart_silence=30 needs max_core_restarts"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ServerSettings(**changes)
