"""Many streams at once: sends prompts together and shows each answer's first token and its rate.

pip install openai
workbench serve demo
python examples/streaming_client.py --streams 8
"""

import argparse
import asyncio
import time

from openai import AsyncOpenAI


async def follow(client: AsyncOpenAI, model: str, number: int, max_tokens: int) -> None:
    """Read one stream and say how it went."""
    start = time.perf_counter()
    first = None
    num_tokens = 0
    stream = await client.completions.create(
        model=model,
        prompt=f"Stream {number}: once upon a time",
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async for chunk in stream:
        if chunk.choices and first is None:
            first = time.perf_counter() - start
        if chunk.usage is not None:
            num_tokens = chunk.usage.completion_tokens
    total = time.perf_counter() - start
    print(
        f"stream {number}: first token {1000 * (first or 0):.1f} ms, "
        f"{num_tokens} tokens in {total:.2f} s"
    )


async def run(options: argparse.Namespace) -> None:
    async with AsyncOpenAI(base_url=options.base_url, api_key=options.api_key) as client:
        model = (await client.models.list()).data[0].id
        await asyncio.gather(
            *(follow(client, model, i, options.max_tokens) for i in range(options.streams))
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Many streams at once.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
