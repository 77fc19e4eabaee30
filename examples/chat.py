"""A chat in the terminal with a server that speaks OpenAI's API. An empty line ends it.

pip install openai
workbench serve demo
python examples/chat.py
"""

import argparse

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat in the terminal.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()

    client = OpenAI(base_url=options.base_url, api_key=options.api_key)
    model = client.models.list().data[0].id
    messages: list[ChatCompletionMessageParam] = []
    while text := ask():
        messages.append({"role": "user", "content": text})
        answer = ""
        stream = client.chat.completions.create(
            model=model, messages=messages, stream=True, max_tokens=options.max_tokens
        )
        for chunk in stream:
            piece = chunk.choices[0].delta.content if chunk.choices else None
            print(piece or "", end="", flush=True)
            answer += piece or ""
        print()
        messages.append({"role": "assistant", "content": answer})


def ask() -> str:
    """What the user types; "" at the end of the input."""
    try:
        return input("> ")
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
