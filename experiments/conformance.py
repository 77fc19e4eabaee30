"""Replays recorded scheduling decisions (format `sched-oracle/1`) and names the first difference.

    python -m experiments.conformance PATH... [--level 2]

A scenario is the input of a scheduler and every decision that vLLM's own scheduler took on it, its
model being faked. Here the same input goes through the ordinary engine core. Level 1 compares the
decisions, level 2 also free-block counts and queue orders, level 3 also physical block ids.
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.fake_model import FakeModel, output_token, prompt_tokens
from experiments.scenario import not_whole, read_scenario
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import WorkbenchError
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler

FIELDS = {
    1: (
        "scheduled",
        "preempted",
        "admitted",
        "draft_tokens",
        "update_of_step",
        "computed_after_schedule",
        "tokens_out",
        "finished",
    ),
    2: ("free_blocks_after_schedule", "free_blocks_end", "running", "waiting"),
    3: ("detail_block_tables_changed",),
}


@dataclass(frozen=True)
class Difference:
    """Where a replay first departs from its recording."""

    level: int
    step: int
    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"step {self.step} {self.field}: expected {self.expected}, got {self.got}"


class Replay:
    """One scenario on its way through the scheduler."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        config = scenario["config"]
        self._scenario = scenario
        self._depth = config["pipeline_depth"]
        self._stops = {
            item["id"]: output_token(j, item["stop_after"] - 1)
            for j, item in enumerate(scenario["requests"])
            if item.get("stop_after") is not None
        }
        self._model = FakeModel(scenario)
        self.scheduler = Scheduler(
            scheduler_config(config), cache_config(config), config["num_usable_blocks"]
        )
        self._requests: dict[str, Request] = {}
        self._tables: dict[str, list[list[int]]] = {}
        self._in_flight: deque[tuple[int, SchedulerOutput, ModelRunnerOutput]] = deque()

    def differences(self) -> Iterable[Difference]:
        """Every difference, in the order of steps and levels."""
        for expected in self._scenario["steps"]:
            got = self._step(expected["step"])
            for level, fields in FIELDS.items():
                for field in fields:
                    default: Any = {} if field.startswith(("draft", "detail", "computed")) else None
                    want = expected.get(field, default)
                    have = got.get(field, default)
                    if field in ("tokens_out", "finished", "scheduled"):
                        want, have = want or [], have or []
                    if want != have:
                        yield Difference(level, expected["step"], field, want, have)

    def _step(self, number: int) -> dict[str, Any]:
        self._arrive(number)
        aborts = [a["id"] for a in self._scenario["aborts"] if a["step"] == number]
        self.scheduler.abort_requests(aborts)
        if not self.scheduler.has_requests and not self._in_flight:
            return self._queues({})
        counts = {i: r.num_output_tokens for i, r in self._requests.items()}
        after: dict[str, Any] = {}
        outputs = self._drive(number, after)
        return self._queues(self._outcome(after, outputs, counts))

    def _drive(self, number: int, after: dict[str, Any]) -> EngineCoreOutputs:
        """Schedule a step and take in the results of the one whose turn it is."""
        is_empty = True
        if self.scheduler.has_requests:
            output = self.scheduler.schedule(float(number))
            is_empty = output.total_num_scheduled_tokens == 0
            self._in_flight.append((number, output, self._model.run(output)))
            self._note_schedule(output, after)
        if len(self._in_flight) < self._depth and not is_empty:
            return EngineCoreOutputs()
        returned, output, answer = self._in_flight.popleft()
        after["update_of_step"] = returned
        return self.scheduler.update_from_output(output, answer, float(number))

    def _arrive(self, number: int) -> None:
        for j, item in enumerate(self._scenario["requests"]):
            if item["arrival_step"] == number:
                request = self._request(j, item)
                self._requests[item["id"]] = request
                self.scheduler.add_request(request, float(number))

    def _request(self, ordinal: int, item: dict[str, Any]) -> Request:
        tokens = prompt_tokens(item["prompt"], self._scenario["requests"])
        stop = self._stops.get(item["id"])
        request = Request(
            item["id"],
            len(tokens),
            item["max_tokens"],
            arrival_time=float(ordinal),
            prompt_token_ids=tokens,
            priority=item.get("priority", 0),
            stop_token_ids=frozenset() if stop is None else frozenset([stop]),
        )
        block_size = self._scenario["config"]["block_size"]
        request.block_hashes = TokenBlockHashes(tokens, request.output_token_ids, block_size)
        return request

    def _note_schedule(self, output: SchedulerOutput, after: dict[str, Any]) -> None:
        after["scheduled"] = [[i, n] for i, n in output.num_scheduled_tokens.items()]
        after["preempted"] = output.preempted_req_ids
        after["admitted"] = [
            {
                "id": new.request_id,
                "cached_tokens": new.num_computed_tokens,
                "resumed": self._requests[new.request_id].num_preemptions > 0,
            }
            for new in output.scheduled_new_reqs
        ]
        drafts = output.scheduled_spec_decode_tokens
        after["draft_tokens"] = {i: len(tokens) for i, tokens in drafts.items()}
        after["free_blocks_after_schedule"] = self.scheduler.kv_cache_manager.num_free_blocks
        after["computed_after_schedule"] = {
            i: self._requests[i].num_computed_tokens for i in output.num_scheduled_tokens
        }
        after["detail_block_tables_changed"] = self._changed_tables(output)

    def _changed_tables(self, output: SchedulerOutput) -> dict[str, list[list[int]]]:
        changed = {}
        for request_id in output.preempted_req_ids:
            self._tables.pop(request_id, None)
        for request_id in output.num_scheduled_tokens:
            tables = [list(table) for table in self._requests[request_id].block_ids]
            if self._tables.get(request_id) != tables:
                changed[request_id] = self._tables[request_id] = tables
        return changed

    def _outcome(
        self, after: dict[str, Any], outputs: EngineCoreOutputs, counts: dict[str, int]
    ) -> dict[str, Any]:
        gained = {
            i: r.num_output_tokens - counts[i]
            for i, r in self._requests.items()
            if r.num_output_tokens > counts[i]
        }
        order = [r.request_id for r, _ in outputs.new_tokens()]
        after["tokens_out"] = [[i, gained[i]] for i in order if i in gained]
        after["finished"] = [[r.request_id, r.finish_reason] for r in outputs.finished]
        return after

    def _queues(self, after: dict[str, Any]) -> dict[str, Any]:
        after["free_blocks_end"] = self.scheduler.kv_cache_manager.num_free_blocks
        after["running"] = [r.request_id for r in self.scheduler.running]
        after["waiting"] = [r.request_id for r in self.scheduler.waiting]
        return after


def scheduler_config(config: dict[str, Any]) -> SchedulerConfig:
    """A scenario's settings under our names."""
    return SchedulerConfig(
        policy=config["policy"],
        max_num_seqs=config["max_num_seqs"],
        max_num_batched_tokens=config["max_num_batched_tokens"],
        max_model_len=config["max_model_len"],
        enable_chunked_prefill=config["chunked_prefill"],
        long_prefill_token_threshold=config["long_prefill_token_threshold"],
        long_prefill_token_threshold_adaptive=config["long_prefill_token_threshold_adaptive"],
        scheduler_reserve_full_isl=config["admission_requires_full_prompt_fit"],
        watermark=config["watermark"],
        max_num_active_seqs=config["max_num_active_seqs"],
        prefill_schedule_interval=config["prefill_schedule_interval"],
        async_scheduling=config["pipeline_depth"] > 1,
        num_speculative_tokens=config["spec_tokens"],
    )


def cache_config(config: dict[str, Any]) -> CacheConfig:
    """A scenario's cache under our names."""
    return CacheConfig(
        block_size=config["block_size"],
        enable_prefix_caching=config["prefix_caching"],
        sliding_window=config["sliding_window"],
        hybrid_window=config["hybrid_window"],
    )


def level_reached(path: Path) -> tuple[int, Difference | None]:
    """(highest level at which the replay equals the recording, first difference above it)."""
    scenario = read_scenario(path)
    first: dict[int, Difference] = {}
    try:
        for difference in Replay(scenario).differences():
            first.setdefault(difference.level, difference)
            if difference.level == 1:
                break
    except (KeyError, TypeError, IndexError) as error:
        raise not_whole(path, error) from error
    lowest = min(first, default=4)
    return lowest - 1, first.get(lowest)


def scenario_files(path: Path) -> list[tuple[str, Path]]:
    """(name to be shown, file) of a file, or of every scenario in a folder and those below it."""
    if not path.is_dir():
        return [(path.name, path)]
    return [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*.json"))]


def main(argv: Sequence[str] | None = None) -> int:
    """Replay scenario files; 1 if any falls short of the level asked for."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")
    parser.add_argument("--level", type=int, default=2, choices=(1, 2, 3), help="default: 2")
    args = parser.parse_args(argv)
    files = [named for path in args.paths for named in scenario_files(path)]
    if not files:
        print(f"no *.json file in {args.paths[0]}: name scenario files", file=sys.stderr)
        return 2
    short = 0
    for name, file in files:
        try:
            level, difference = level_reached(file)
        except WorkbenchError as error:
            print(f"{name}: error: {error}")
            short += 1
            continue
        note = f"; {difference}" if difference is not None else ""
        print(f"{name}: level {level}{note}")
        short += level < args.level
    print(f"{len(files) - short} of {len(files)} at level {args.level} or above")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
