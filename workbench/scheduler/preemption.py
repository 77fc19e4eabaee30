"""Who gives way when the KV cache is full: the victim among the running requests.

A victim policy knows the running requests in the order of their admission. What happens to the
victim (its blocks are freed or swapped, it waits again) is the scheduler's business. A new policy
is one class with `select`, and one yaml. Of equal requests the one admitted last gives way.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.kv_cache.block_pool import NULL_BLOCK
from workbench.request import Request

if TYPE_CHECKING:
    from workbench.kv_cache.kv_cache_manager import KVCacheManager


class VictimPolicy(ABC):
    """Base of all victim policies."""

    def bind(self, kv_cache_manager: "KVCacheManager") -> None:  # noqa: B027
        """Hook: called once, before the first `select`, for policies that ask the KV cache."""

    @abstractmethod
    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        """The request to preempt.

        Args:
            running: In order of admission; never empty; `for_request` may be among them.
            for_request: The request that needs blocks.
        """


class LastAdmitted(VictimPolicy):
    """The request admitted last (vLLM's rule under the policy "fcfs").

    Keeps first come, first served: what was admitted early is never held up by a later arrival. It
    mostly throws away the least progress too, since the youngest has computed least.
    """

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        return running[-1]


class LowestPriority(VictimPolicy):
    """The least urgent request: largest priority value, then latest arrival.

    vLLM's rule under the policy "priority". Use it with the priority queue: with another victim
    policy an urgent request may be preempted by one that the queue would have put behind it.
    """

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        return max(running, key=lambda r: (r.priority, r.arrival_time, r.arrival_index))


class LeastProgress(VictimPolicy):
    """The request with the fewest computed tokens.

    Loses the least work under preemption by recomputation. It differs from LastAdmitted where
    prompts differ in length: a long prompt admitted last has more to lose than a short one before
    it. It frees few blocks at a time, so it may preempt more often.
    """

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        return min(reversed(running), key=lambda r: r.num_computed_tokens)


class MostBlocks(VictimPolicy):
    """The request that holds the most KV blocks.

    Frees the most memory at once, so the fewest requests are disturbed; useful where swapping makes
    a victim's work cheap to keep, or where a few long contexts crowd out many short ones. Blocks
    shared with others count too, though preempting one holder does not free them. The request
    admitted first is spared, or two that outgrow each other would throw each other out for ever.
    """

    def select(self, running: Sequence[Request], for_request: Request) -> Request:
        return max(reversed(running[1:] or running), key=_num_blocks)


def _num_blocks(request: Request) -> int:
    return sum(len(table) - table.count(NULL_BLOCK) for table in request.block_ids)
