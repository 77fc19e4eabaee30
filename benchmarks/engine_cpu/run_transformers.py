"""transformers' generate: one static batch, padded on the left, run to the longest answer.

Tokens beyond a request's own length are computed and not counted, as a static batch has it.
"""

import os
import sys
from typing import Any

# read when torch is loaded; see README.md
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers
from stopwatch import timed


def main(model_folder: str, requests: str, dtype: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    @torch.inference_mode()
    def answer(items: list[dict[str, Any]]) -> list[int]:
        width = max(len(item["prompt_token_ids"]) for item in items)
        ids = torch.zeros(len(items), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(items):
            prompt = item["prompt_token_ids"]
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        longest = max(item["max_tokens"] for item in items)
        out = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=longest
        )
        assert out.shape[1] == width + longest
        return [item["max_tokens"] for item in items]

    timed(answer, requests, transformers.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
