"""What every contestant reports, measured in the same way. Standard library only."""

import json
import os
import time
from collections.abc import Callable
from typing import Any


def load_requests(path: str) -> list[dict[str, Any]]:
    with open(path) as file:
        requests: list[dict[str, Any]] = json.load(file)
    return requests


def timed(answer: Callable[[list[dict[str, Any]]], list[int]], path: str, version: str) -> None:
    """Times `answer` on all requests after a warm-up on four; prints the result as one line.

    Args:
        answer: From requests to the number of output tokens of each.
        path: The requests.
        version: Of the contestant.
    """
    requests = load_requests(path)
    answer(requests[:4])
    pids = [os.getpid(), *_children(os.getpid())]
    cpu, start = _cpu_seconds(pids), time.perf_counter()
    counts = answer(requests)
    wall = time.perf_counter() - start
    cpu = _cpu_seconds(pids) - cpu
    wanted = [request["max_tokens"] for request in requests]
    if counts != wanted:
        raise SystemExit(f"answers of {counts} tokens instead of {wanted}")
    total = sum(counts)
    result = {
        "output_tokens_per_s": total / wall,
        "output_tokens_per_cpu_s": total / cpu,
        "wall_s": wall,
        "cpu_s": cpu,
        "version": version,
    }
    print(json.dumps(result), flush=True)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            direct = [int(child) for child in file.read().split()]
    except OSError:
        return []
    return direct + [grandchild for child in direct for grandchild in _children(child)]


def _cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
