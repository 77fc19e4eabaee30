"""Reader of the Mooncake traces, whose block ids drive prefix caching.

Source: https://github.com/kvcache-ai/Mooncake, FAST25-release/traces (Apache-2.0). JSON lines with
timestamp [ms], input_length, output_length [tokens] and hash_ids, chained, one per 512 tokens, the
last block counted even if it is not full. The ids of the answers are not known.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from workbench.workload.base import RequestColumns
from workbench.workload.trace import FETCH, TraceWorkload, check_hash_ids
from workbench.workload.trace_file import list_column, read_jsonl

BLOCK_SIZE = 512


class MooncakeTrace(TraceWorkload):
    """A Mooncake trace; arrivals are its time stamps in seconds."""

    hint: ClassVar[str] = FETCH

    def read(self, path: Path) -> tuple[RequestColumns, Sequence[int]]:
        needed = ("timestamp", "input_length", "output_length", "hash_ids")
        table = read_jsonl(path, needed, (), self.hint)
        prompts = table.token_counts("input_length")
        hash_ids = list_column(table, "hash_ids")
        check_hash_ids(table, "hash_ids", hash_ids, prompts, BLOCK_SIZE)
        columns = RequestColumns(
            arrival_times=table.numbers("timestamp", at_least=0) / 1e3,
            num_prompt_tokens=prompts,
            num_output_tokens=table.token_counts("output_length"),
            hash_ids=hash_ids,
            hash_block_size=BLOCK_SIZE,
        )
        return columns, table.lines
