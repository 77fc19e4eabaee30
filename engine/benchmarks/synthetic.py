"""Steps of any shape, without the prompts that would lead to them.

A step time depends on how many tokens attend to how many, not on what the tokens are. So requests
are told to hold a context that was never computed (the KV cache holds zeros) and go on from there:
a decode of 256 requests at 4,096 tokens needs no million tokens of prefill first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.outputs import BatchRows, NewRequestData, SchedulerOutput
from workbench.request import Request
from workbench.sampling_params import SamplingParams

TOKEN = 1
ENDLESS = 1 << 20
GREEDY = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a step.

    Attributes:
        query_len: Tokens computed in the step.
        context_len: Tokens before them.
        samples: Whether the step samples a token of it; a chunk inside a prompt does not.
        shared_len: Tokens of the context that all rows with any share, in whole blocks.
    """

    query_len: int
    context_len: int
    samples: bool = True
    shared_len: int = 0


class SyntheticSteps:
    """Makes SchedulerOutputs for a model runner.

    Args:
        num_blocks: Usable KV blocks. Where the rows need more, they share: what is read is then the
            same in bytes, and far larger than any cache of the device.
        block_size: Tokens a block.
        room: Tokens that a row may grow by.
        num_groups: KV-cache groups.
    """

    def __init__(
        self, num_blocks: int, block_size: int, room: int = 64, num_groups: int = 1
    ) -> None:
        self._num_groups = num_groups
        self._num_blocks = num_blocks
        self._block_size = block_size
        self._room = room
        self._num_steps = 0
        self._num_requests = 0
        self._next_block = 0
        self._live: list[Request] = []
        self._shared: list[int] = []

    def join(self, rows: Sequence[Row]) -> SchedulerOutput:
        """A step in which these rows are new, and all earlier ones are gone."""
        gone = [request.request_id for request in self._live]
        self._live = [self._request(row) for row in rows]
        most = max((row.shared_len for row in rows), default=0)
        self._shared = self._take(most // self._block_size)
        tokens = {request: row.query_len for request, row in zip(self._live, rows, strict=True)}
        output = self._output(BatchRows(self._live, tokens), sum(tokens.values()))
        output.finished_req_ids = gone
        output.scheduled_new_reqs = [
            self._new(request, row) for request, row in zip(self._live, rows, strict=True)
        ]
        return output

    def renew(self, rows: Sequence[Row]) -> SchedulerOutput:
        """A step in which the last rows are gone, these are new, and all others decode on.

        Args:
            rows: As many as the last ones that are gone.
        """
        kept, gone = self._live[: -len(rows)], self._live[-len(rows) :]
        new = [self._request(row) for row in rows]
        self._live = kept + new
        tokens = {request: row.query_len for request, row in zip(new, rows, strict=True)}
        output = self._output(BatchRows(self._live, tokens), len(kept) + sum(tokens.values()))
        output.finished_req_ids = [request.request_id for request in gone]
        output.scheduled_new_reqs = [
            self._new(request, row) for request, row in zip(new, rows, strict=True)
        ]
        return output

    def repeat(self) -> SchedulerOutput:
        """A step in which every row decodes one token more."""
        return self._output(BatchRows(self._live, {}), len(self._live))

    def leave(self) -> SchedulerOutput:
        """A step without tokens in which all rows are gone."""
        output = self._output(BatchRows([], {}), 0)
        output.finished_req_ids = [request.request_id for request in self._live]
        self._live = []
        return output

    def _output(self, rows: BatchRows, num_tokens: int) -> SchedulerOutput:
        output = SchedulerOutput(self._num_steps, rows)
        self._num_steps += 1
        output.total_num_scheduled_tokens = num_tokens
        return output

    def _request(self, row: Row) -> Request:
        self._num_requests += 1
        num_prompt = row.context_len + row.query_len + (0 if row.samples else 1)
        return Request(f"synthetic-{self._num_requests}", num_prompt, ENDLESS)

    def _new(self, request: Request, row: Row) -> NewRequestData:
        num_tokens = row.context_len + row.query_len + self._room
        shared = self._shared[: row.shared_len // self._block_size]
        own = self._take(-(-num_tokens // self._block_size) - len(shared))
        blocks = (*shared, *own)
        return NewRequestData(
            request_id=request.request_id,
            num_prompt_tokens=request.num_prompt_tokens,
            prompt_token_ids=[TOKEN] * request.num_prompt_tokens,
            output_token_ids=(),
            sampling_params=GREEDY,
            block_ids=(blocks,) * self._num_groups,
            num_computed_tokens=row.context_len,
        )

    def _take(self, num_blocks: int) -> list[int]:
        first = self._next_block
        self._next_block += num_blocks
        return [1 + (first + i) % self._num_blocks for i in range(num_blocks)]
