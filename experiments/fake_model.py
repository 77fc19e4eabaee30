"""The model of a recorded scenario: which tokens it samples, and which its prompts consist of.

Knows how a `sched-oracle/1` file writes tokens down. Knows nothing of schedulers or comparisons.
"""

from typing import Any

from workbench.outputs import ModelRunnerOutput, SchedulerOutput

DRAFT_TOKEN = 1


class FakeModel:
    """Answers every step as the scenario says."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self._items = {item["id"]: item for item in scenario["requests"]}
        self._ordinals = {item["id"]: j for j, item in enumerate(scenario["requests"])}
        self._num_drafts = scenario["config"]["spec_tokens"]
        self._num_sampled = dict.fromkeys(self._items, 0)
        self._num_verifications = dict.fromkeys(self._items, 0)
        self._known: dict[str, int] = {}

    def run(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """The tokens of every row, and drafts for the next step."""
        rows: list[list[int]] = []
        drafts: dict[str, list[int]] = {}
        for new in scheduler_output.scheduled_new_reqs:
            self._known[new.request_id] = new.num_computed_tokens
        for request_id, num_tokens in scheduler_output.num_scheduled_tokens.items():
            rows.append(self._sample(request_id, num_tokens, scheduler_output))
            if rows[-1] and self._num_drafts:
                drafts[request_id] = [DRAFT_TOKEN] * self._num_drafts
        return ModelRunnerOutput(rows, drafts)

    def _sample(self, request_id: str, num_tokens: int, output: SchedulerOutput) -> list[int]:
        """The tokens of one row: none before the prompt (or what was recomputed) is complete."""
        item = self._items[request_id]
        drafts = output.scheduled_spec_decode_tokens.get(request_id, [])
        computed = self._known[request_id] + num_tokens - len(drafts)
        if computed < item["prompt_len"] + self._num_sampled[request_id]:
            self._known[request_id] = computed
            return []
        num_accepted = 0
        if drafts:
            accept = item.get("accept") or [0]
            turn = self._num_verifications[request_id]
            num_accepted = min(accept[turn % len(accept)], len(drafts))
            self._num_verifications[request_id] += 1
        first = self._num_sampled[request_id]
        self._num_sampled[request_id] += 1 + num_accepted
        self._known[request_id] = computed + num_accepted
        return [
            output_token(self._ordinals[request_id], first + k) for k in range(1 + num_accepted)
        ]


def output_token(ordinal: int, k: int) -> int:
    """Output token k of the request listed at `ordinal`."""
    return 500000 + 10000 * ordinal + k


def prompt_tokens(segments: list[dict[str, Any]], items: list[dict[str, Any]]) -> list[int]:
    """The token ids of a prompt given by segments."""
    ordinals = {item["id"]: j for j, item in enumerate(items)}
    tokens: list[int] = []
    for segment in segments:
        if "output_of" in segment:
            ordinal = ordinals[segment["output_of"]]
            tokens += [output_token(ordinal, k) for k in range(segment["len"])]
        else:
            seed = segment["seed"] * 1000003
            tokens += [1 + (seed + i * 7919) % 199999 for i in range(segment["len"])]
    return tokens
