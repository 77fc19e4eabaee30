"""Our engine."""

import os
import sys
from pathlib import Path
from typing import Any

# read when torch is loaded; see README.md
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stopwatch import timed

from engine import LLM, SamplingParams


def main(model: str, requests: str, dtype: str) -> None:
    llm = LLM(model=model, dtype=dtype, skip_tokenizer_init=True, max_num_seqs=64, device="cpu")

    def answer(items: list[dict[str, Any]]) -> list[int]:
        params = [
            SamplingParams(temperature=0.0, max_tokens=item["max_tokens"], ignore_eos=True)
            for item in items
        ]
        prompts = [{"prompt_token_ids": item["prompt_token_ids"]} for item in items]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]

    timed(answer, requests, "this revision")


if __name__ == "__main__":
    main(*sys.argv[1:])
