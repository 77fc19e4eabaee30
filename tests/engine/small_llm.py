"""An LLM on a tiny checkpoint, with small limits that can be replaced by name."""

from typing import Any

from engine import LLM, RequestOutput, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
SMALL = {"num_hidden_layers": 2, "max_position_embeddings": 256}
quiet = {"use_tqdm": False}


def load(folder: Any, **settings: Any) -> LLM:
    small = {"max_num_seqs": 16, "num_gpu_blocks_override": 300, "block_size": 8, "device": "cpu"}
    return LLM(folder, **(small | settings))


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [answer.token_ids for output in outputs for answer in output.outputs]
