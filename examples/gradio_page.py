"""A chat as a page in the browser, by Gradio, in front of a server that speaks OpenAI's API.

pip install openai gradio
workbench serve demo
python examples/gradio_page.py
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from openai import OpenAI


def answer(client: OpenAI, history: list[dict[str, Any]], text: str) -> Iterator[str]:
    """The answer to a message, longer and longer."""
    messages: Any = [
        {"role": turn["role"], "content": plain_text(turn["content"])} for turn in history
    ]
    messages.append({"role": "user", "content": text})
    model = client.models.list().data[0].id
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, max_tokens=256
    )
    said = ""
    for chunk in stream:
        said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        yield said


def plain_text(content: Any) -> str:
    """Gradio keeps a turn as text or as a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def main() -> int:
    parser = argparse.ArgumentParser(description="A chat as a page in the browser.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    try:
        import gradio
    except ImportError:
        print("error: this page needs Gradio: pip install gradio", file=sys.stderr)
        return 1

    client = OpenAI(base_url=options.base_url, api_key=options.api_key)

    def chat(text: str, history: list[dict[str, Any]]) -> Iterator[str]:
        yield from answer(client, history, text)

    page = gradio.ChatInterface(chat, title="LLM serving workbench")
    page.launch(server_name="127.0.0.1", server_port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
