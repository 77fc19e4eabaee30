"""What the router adds: the same load on one server directly and through `workbench route`.

    python benchmarks/serving/router_latency.py [GROUP=OPTION …]

The engine is simulated with steps of no time. `1_stream`: one stream at a time, directly and
through the router in turns; `throughput`: 256 streams, where server, router and client share the
machine's cores.
"""

import sys
from typing import Any

from load_client import bench
from server_process import ServerProcess, report, simulated
from streaming import seen

from experiments.provenance import Stopwatch

STREAMS = 256
TURNS = 3


def measured(urls: dict[str, str]) -> dict[str, Any]:
    """Each load on each way."""
    found: dict[str, Any] = {}
    for turn in range(TURNS):
        for name, url in urls.items():
            words = ("--random-input-len", 32, "--random-output-len", 64, "--seed", turn)
            load = ("--num-prompts", 200, "--max-concurrency", 1, "--num-warmups", 20)
            found.setdefault("1_stream", {}).setdefault(name, []).append(
                seen(bench(url, *words, *load))
            )
    for name, url in urls.items():
        words = ("--random-input-len", 32, "--random-output-len", 128)
        load = ("--num-prompts", 2 * STREAMS, "--max-concurrency", STREAMS, "--num-warmups", 20)
        found.setdefault("throughput", {})[name] = seen(bench(url, *words, *load))
    return found


def main() -> None:
    stopwatch = Stopwatch()
    policy = sys.argv[1:] or ["router=longest_prefix"]
    with ServerProcess(*simulated("--max-num-seqs", str(STREAMS))) as server:
        words = ("--backend", server.url, *policy)
        with ServerProcess(*words, module="experiments.route") as router:
            results = measured({"direct": server.url, "through_the_router": router.url})
    report(results, stopwatch)


if __name__ == "__main__":
    main()
