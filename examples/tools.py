"""A tool call and its answer: the model asks for a function, this program runs it and reports back.

pip install openai
workbench serve demo
python examples/tools.py
"""

import argparse
import json
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city, today",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 16},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


def get_weather(city: str, unit: str) -> dict[str, str | int]:
    """What a real program would ask a weather service."""
    return {"city": city, "temperature": 21 if unit == "celsius" else 70, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description="A tool call and its answer.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    options = parser.parse_args()

    client = OpenAI(base_url=options.base_url, api_key=options.api_key)
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": "Is it warm in Lisbon?"}]
    # named, so that a model without any training calls it, too
    asked = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=128,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    message = asked.choices[0].message
    call = (message.tool_calls or [])[0]
    if call.type != "function":
        raise SystemExit(f"the model called {call.type}, not a function")
    arguments = json.loads(call.function.arguments)
    print(f"the model calls {call.function.name}({arguments})")

    result = json.dumps(get_weather(**arguments))
    messages += [
        {"role": "assistant", "tool_calls": [call.to_dict()]},
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=32)
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
