"""What a viewer is told of a step: the messages of the live view, from the core to the page.

They hold differences: who has all of them since the first one (`is_first`) knows everything. How
they are made, step_detail knows; how they are drawn, the page.
"""

import msgspec

PREEMPTED = "preempted"
MOST_WAITING = 200  # waiting requests that are told by name


class RequestFacts(msgspec.Struct, array_like=True, frozen=True):
    """What does not change of a request. `key` stands for it in all details that follow."""

    key: int
    request_id: str
    num_prompt_tokens: int
    max_tokens: int
    priority: int


class Row(msgspec.Struct, array_like=True, frozen=True):
    """A request's part in a step.

    Attributes:
        key: The request.
        num_tokens: Tokens computed, drafts included.
        num_prefill_tokens: Those of them that are neither generated nor guessed.
        num_computed_tokens: Tokens computed once the step is done.
    """

    key: int
    num_tokens: int
    num_prefill_tokens: int
    num_computed_tokens: int


class TableChange(msgspec.Struct, array_like=True, frozen=True):
    """A block table from one place on.

    Attributes:
        key: The request.
        group: The KV-cache group.
        num_skipped: Leading blocks that it has given back (they have left a window).
        start: Place of the first of `blocks`; whatever stood there and behind it is gone.
        blocks: Physical block ids, from 1.
    """

    key: int
    group: int
    num_skipped: int
    start: int
    blocks: list[int]


class BlockMap(msgspec.Struct, array_like=True, frozen=True):
    """The states of all KV blocks, block 1 first; see `workbench.kv_cache.block_pool.show_state`.

    Attributes:
        states: All of them, or, where `places` is not None, the new ones at those places.
        places: Places that have changed, unsigned 32 bit, little endian.
    """

    states: bytes
    places: bytes | None = None


class StepDetail(msgspec.Struct, array_like=True, frozen=True):
    """One step, as far as it differs from the last one that was told.

    Attributes:
        step: Number of the step.
        is_first: Everything that was told before is to be forgotten.
        requests: Requests that have not been told before.
        admitted: (key, tokens found in the prefix cache, preemptions so far) of requests that have
            begun to run.
        rows: The rows of the batch that are not what they were. A row that stays and is not named
            has decoded: one token in this step, and one more computed for each step since the last
            one that was told.
        gone: Keys whose rows are no more.
        tables: Block tables that have changed. Who leaves has none.
        left: (key, why) of requests that run or wait no more: "preempted", or how they ended.
        waiting: Keys of those that wait, next one first, at most `MOST_WAITING`; None: as before.
        block_map: None: as before.
    """

    step: int
    is_first: bool
    requests: list[RequestFacts]
    admitted: list[tuple[int, int, int]]
    rows: list[Row]
    gone: list[int]
    tables: list[TableChange]
    left: list[tuple[int, str]]
    waiting: list[int] | None = None
    block_map: BlockMap | None = None
