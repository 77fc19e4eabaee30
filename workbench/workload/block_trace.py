"""Reader of replayed conversations with chained ids of their 16-token blocks.

JSON lines with input_toks, output_toks, arrival_time_ns, prompt_block_ids16 (one id a full block
of the prompt) and full_block_ids16 (of prompt + answer, beginning with those of the prompt).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from workbench.workload.base import RequestColumns
from workbench.workload.trace import TraceWorkload, check_hash_ids
from workbench.workload.trace_file import list_column, read_jsonl

BLOCK_SIZE = 16


class BlockTrace(TraceWorkload):
    """A trace that knows the blocks of prompts and of answers; arrivals are its times in s."""

    hint: ClassVar[str] = "name an existing file with workload.path=FILE or its folder, traces_dir"

    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        needed = (
            "input_toks",
            "output_toks",
            "arrival_time_ns",
            "prompt_block_ids16",
            "full_block_ids16",
        )
        table = read_jsonl(path, needed, (), self.hint)
        prompts = table.token_counts("input_toks")
        outputs = table.token_counts("output_toks")
        hash_ids = list_column(table, "prompt_block_ids16")
        full_ids = list_column(table, "full_block_ids16")
        check_hash_ids(table, "full_block_ids16", full_ids, prompts + outputs, BLOCK_SIZE)
        check_hash_ids(table, "prompt_block_ids16", hash_ids, prompts, BLOCK_SIZE)
        for row, (ids, full) in enumerate(zip(hash_ids, full_ids, strict=True)):
            if full[: len(ids)] != ids:
                table.fail(
                    row, "full_block_ids16 does not begin with prompt_block_ids16; correct the row"
                )
        columns = RequestColumns(
            arrival_times=table.numbers("arrival_time_ns", at_least=0) / 1e9,
            num_prompt_tokens=prompts,
            num_output_tokens=outputs,
            hash_ids=hash_ids,
            hash_block_size=BLOCK_SIZE,
            output_hash_ids=[
                full[len(ids) :] for ids, full in zip(hash_ids, full_ids, strict=True)
            ],
        )
        return columns, table.lines
