"""LangChain's client and litellm against a server.

python benchmarks/serving/clients/langchain_and_litellm.py http://127.0.0.1:8000/v1 [MODEL]
"""

import sys
from typing import Any

import litellm
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """An answer of a given form."""

    name: str
    age: int


def main() -> None:
    url, model = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "tiny"
    common: dict[str, Any] = {"model": model, "base_url": url, "api_key": "none"}
    chat = ChatOpenAI(**common, max_tokens=80)
    print("invoke", repr(ChatOpenAI(**common, max_tokens=8).invoke("Hello").content))
    pieces = list(ChatOpenAI(**common, max_tokens=8).stream("Hello"))
    print("stream", len(pieces), "pieces")
    print("structured output", repr(chat.with_structured_output(Person).invoke("Who?")))
    by_call = chat.with_structured_output(Person, method="function_calling")
    print("by a function's arguments", repr(by_call.invoke("Who?")))
    print("completion", repr(OpenAI(**common, max_tokens=8).invoke("Hello")))
    messages = [{"role": "user", "content": "Hello"}]
    answer = litellm.completion(
        model=f"openai/{model}", api_base=url, api_key="none", messages=messages, max_tokens=5
    )
    print("litellm", repr(answer.choices[0].message.content), answer.usage.completion_tokens)


main()
