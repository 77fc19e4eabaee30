"""Hit rates of one LRU list of 512-token blocks over the Mooncake conversation trace.

    python benchmarks/mooncake_lru.py TRACE.jsonl > benchmarks/mooncake_lru.csv

Uses nothing of the workbench: requests come one at a time, hit the longest cached prefix and are
cached as a whole. It is a check on the simulator, and a bound on what routing can reach.
"""

import csv
import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

TOKENS = 512
CAPACITIES = (200_000, 450_000, 800_000, 3_200_000, 3_611_264, 12_800_000, 10**12)


def hit_rate(rows: Sequence[dict[str, Any]], capacity_tokens: int) -> float:
    """Share of the prompt tokens found in an LRU list of so many tokens."""
    cached: OrderedDict[int, None] = OrderedDict()
    hits = queries = 0
    for row in rows:
        blocks, prompt = row["hash_ids"], row["input_length"]
        found = next((i for i, block in enumerate(blocks) if block not in cached), len(blocks))
        hits += min(found * TOKENS, prompt - 1)
        queries += prompt
        for block in reversed(blocks):  # the end of a prompt is evicted before its beginning
            cached[block] = None
            cached.move_to_end(block)
        while len(cached) * TOKENS > capacity_tokens:
            cached.popitem(last=False)
    return hits / queries


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    first = [row for row in rows if row["timestamp"] < 1_200_000]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("capacity_tokens", "hit_rate_first_20_min", "hit_rate_whole_trace"))
    for capacity in CAPACITIES:
        values = (f"{hit_rate(part, capacity):.4f}" for part in (first, rows))
        out.writerow((capacity, *values))


if __name__ == "__main__":
    main()
