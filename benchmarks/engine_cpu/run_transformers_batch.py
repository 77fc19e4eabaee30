"""transformers' continuous batching, as `generate_batch` runs it: a manager for every call.

The call's own requests each get their own length, which `generate_batch` itself cannot do. Its
attention gathers all KV, so it is a weak baseline.
"""

import os
import sys
from typing import Any

# read when torch is loaded; see README.md
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import transformers
from stopwatch import timed


def main(model_folder: str, requests: str, dtype: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=dtype, attn_implementation="sdpa"
    ).eval()
    config = transformers.GenerationConfig(
        max_new_tokens=128, do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    def answer(items: list[dict[str, Any]]) -> list[int]:
        counts: dict[str, int] = {}
        with model.continuous_batching_context_manager(
            generation_config=config, block=True, timeout=5
        ) as manager:
            ids = [
                manager.add_request(item["prompt_token_ids"], max_new_tokens=item["max_tokens"])
                for item in items
            ]
            while len(counts) < len(items):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    counts[result.request_id] = len(result.generated_tokens)
        return [counts[request_id] for request_id in ids]

    timed(answer, requests, transformers.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
