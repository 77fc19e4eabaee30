"""Answers without a server: a model, prompts in, texts out.

python -m engine.demo_checkpoint outputs/demo_checkpoint    # once: a small random model
python examples/offline.py
"""

import argparse
import sys

from engine import LLM, SamplingParams

PROMPTS = ["The KV cache holds", "A scheduler decides", "Paged attention was"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers without a server.")
    parser.add_argument("model", nargs="?", default="outputs/demo_checkpoint")
    model = parser.parse_args().model

    try:
        llm = LLM(model, max_model_len=512, enforce_eager=True)
    except ModuleNotFoundError as error:
        sys.exit(f"error: the engine needs {error.name}: pip install -e '.[engine]'")
    params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=32, seed=0)
    for output in llm.generate(PROMPTS, params, use_tqdm=False):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
