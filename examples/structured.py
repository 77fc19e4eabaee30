"""Answers that fit a JSON schema, whatever the model is: the server masks every other token.

pip install openai
workbench serve demo
python examples/structured.py
"""

import argparse
import json

from openai import OpenAI

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "population": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
        "coastal": {"type": "boolean"},
    },
    "required": ["city", "population", "coastal"],
    "additionalProperties": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers that fit a JSON schema.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    options = parser.parse_args()

    client = OpenAI(base_url=options.base_url, api_key=options.api_key)
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Describe a city."}],
        max_tokens=256,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
        },
    )
    city = json.loads(answer.choices[0].message.content or "")
    print(json.dumps(city, indent=2))

    choice = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Is the sea far away?"}],
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    )
    print(choice.choices[0].message.content)


if __name__ == "__main__":
    main()
