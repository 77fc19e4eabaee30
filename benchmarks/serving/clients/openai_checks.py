"""What the `openai` package gets from a server, check by check; the exit status is the failures.

python benchmarks/serving/clients/openai_checks.py http://127.0.0.1:8000/v1 [MODEL]
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

HELLO: Any = [{"role": "user", "content": "Hello"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}


class Person(BaseModel):
    """An answer of a given form."""

    name: str
    mood: Literal["glad", "sad"]
    age: int


class Checks:
    """The checks; each is a method that returns what is worth seeing and raises where it fails."""

    def __init__(self, url: str, model: str | None) -> None:
        self.client = OpenAI(base_url=url, api_key="none", max_retries=0)
        self.aclient = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        self.model = model or self.client.models.list().data[0].id

    def complete(self, **options: Any) -> Any:
        options = {"prompt": "Hello", "max_tokens": 4} | options
        return self.client.completions.create(model=self.model, **options)

    def chat(self, **options: Any) -> Any:
        options = {"messages": HELLO, "max_tokens": 8} | options
        return self.client.chat.completions.create(model=self.model, **options)

    def models(self) -> Any:
        return [model.id for model in self.client.models.list()]

    def model_by_name(self) -> Any:
        return self.client.models.retrieve(self.model).id

    def completion(self) -> Any:
        answer = self.complete()
        assert answer.usage.completion_tokens == 4
        return answer.usage.total_tokens

    def completion_token_ids(self) -> Any:
        answer = self.complete(prompt=[5, 6, 7, 8])
        assert answer.usage.prompt_tokens == 4
        return answer.usage.total_tokens

    def completion_batch_prompts(self) -> Any:
        choices = self.complete(prompt=["Hello", "World"]).choices
        assert [choice.index for choice in choices] == [0, 1]
        return len(choices)

    def completion_echo_logprobs(self) -> Any:
        told = self.complete(prompt=[5, 6, 7], echo=True, logprobs=1, max_tokens=1).choices[0]
        assert len(told.logprobs.token_logprobs) == 4
        assert told.logprobs.token_logprobs[0] is None
        return told.logprobs.text_offset

    def completion_max_tokens_0_echo(self) -> Any:
        told = self.complete(prompt=[5, 6], echo=True, logprobs=1, max_tokens=0).choices[0]
        assert len(told.logprobs.tokens) == 2
        return 2

    def n_and_seed(self) -> Any:
        texts = [
            [choice.text for choice in self.complete(n=3, seed=7, temperature=1.0).choices]
            for _ in range(2)
        ]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) > 1
        return "reproducible"

    def stream_usage(self) -> Any:
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].usage.completion_tokens == 4
        assert not chunks[-1].choices
        return len(chunks)

    def chat_answer(self) -> Any:
        answer = self.chat()
        assert answer.choices[0].message.role == "assistant"
        return answer.choices[0].finish_reason

    def chat_stream(self) -> Any:
        chunks = list(self.chat(stream=True))
        whole = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert chunks[0].choices[0].delta.role == "assistant"
        return len(chunks), len(whole)

    def chat_logprobs(self) -> Any:
        told = self.chat(logprobs=True, top_logprobs=3, max_completion_tokens=2)
        assert len(told.choices[0].logprobs.content[0].top_logprobs) == 3
        return told.choices[0].logprobs.content[0].logprob

    def stop(self) -> Any:
        whole = self.complete(max_tokens=40, temperature=0.0).choices[0].text
        stop = whole[10:12]
        answer = self.complete(max_tokens=40, temperature=0.0, stop=[stop]).choices[0]
        assert answer.text == whole[: whole.index(stop)]
        assert answer.finish_reason == "stop"
        return stop

    def logit_bias(self) -> Any:
        answer = self.complete(
            logit_bias={"70": 100}, logprobs=0, temperature=0.0, extra_body={"return_token_ids": 1}
        )
        assert answer.choices[0].token_ids == [70] * 4
        return answer.choices[0].text

    def json_object(self) -> Any:
        answer = self.chat(response_format={"type": "json_object"}, max_tokens=60)
        return json.loads(answer.choices[0].message.content)

    def json_schema(self) -> Any:
        schema = {"name": "person", "schema": PERSON, "strict": True}
        form = {"type": "json_schema", "json_schema": schema}
        said = json.loads(self.chat(response_format=form, max_tokens=80).choices[0].message.content)
        assert isinstance(said["age"], int)
        return said

    def json_parse_pydantic(self) -> Any:
        answer = self.client.chat.completions.parse(
            model=self.model, messages=HELLO, response_format=Person, max_tokens=80
        )
        assert answer.choices[0].message.parsed is not None
        return answer.choices[0].message.parsed.mood

    def structured_choice(self) -> Any:
        extra = {"structured_outputs": {"choice": ["red", "green"]}}
        text = self.chat(extra_body=extra).choices[0].message.content
        assert text in {"red", "green"}
        return text

    def guided_regex(self) -> Any:
        text = self.complete(extra_body={"guided_regex": "[0-9]{3}"}, max_tokens=8).choices[0].text
        assert len(text) == 3
        return int(text)

    def _called(self, answer: Any) -> Any:
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments)["unit"] in {"C", "F"}
        return answer.choices[0].finish_reason

    def tools_named(self) -> Any:
        choice = {"type": "function", "function": {"name": "get_weather"}}
        return self._called(self.chat(tools=[WEATHER], tool_choice=choice, max_tokens=80))

    def tools_required(self) -> Any:
        return self._called(self.chat(tools=[WEATHER], tool_choice="required", max_tokens=100))

    def tools_streamed(self) -> Any:
        chunks = self.chat(tools=[WEATHER], tool_choice="required", max_tokens=100, stream=True)
        calls = [c.choices[0].delta.tool_calls for c in chunks if c.choices]
        text = "".join(call[0].function.arguments or "" for call in calls if call)
        assert json.loads(text)["unit"] in {"C", "F"}
        return text

    def _refused(self, kind: type[openai.APIStatusError], **options: Any) -> Any:
        try:
            self.client.completions.create(
                **({"model": self.model, "prompt": "a", "max_tokens": 4} | options)
            )
        except kind as error:
            body: Any = error.body
            assert {"message", "type", "param", "code"} <= set(body)
            return error.status_code, body["message"][:80]
        raise AssertionError("it was not refused")

    def err_unknown_model(self) -> Any:
        return self._refused(openai.NotFoundError, model="nope")

    def err_too_long(self) -> Any:
        return self._refused(openai.BadRequestError, prompt=[5] * 200_000)

    def err_bad_param(self) -> Any:
        return self._refused(openai.BadRequestError, temperature=-1.0)

    def err_prompt_missing(self) -> Any:
        return self._refused(openai.BadRequestError, prompt=[])

    def async_concurrent_cancel(self) -> Any:
        async def one(number: int) -> int:
            stream = await self.aclient.completions.create(
                model=self.model, prompt="Hello", max_tokens=32, stream=True
            )
            seen = 0
            async for _ in stream:
                seen += 1
                if number % 2 and seen == 3:
                    await stream.close()
                    break
            return seen

        async def every() -> list[int]:
            seen = await asyncio.gather(*[one(number) for number in range(64)])
            await self.aclient.close()
            return seen

        seen = asyncio.run(every())
        assert all(seen)
        return sum(seen)


def main() -> int:
    checks = Checks(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    helpers = {"complete", "chat"}
    names = [n for n in vars(Checks) if not n.startswith("_") and n not in helpers]
    failed = 0
    for name in names:
        check: Callable[[], Any] = getattr(checks, name)
        try:
            print(f"{name:30}ok   {check()!r}"[:150])
        except Exception as error:
            failed += 1
            print(f"{name:30}FAIL {type(error).__name__}: {error}"[:300])
    print(f"{len(names) - failed} / {len(names)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
