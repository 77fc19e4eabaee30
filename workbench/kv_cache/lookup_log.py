"""Counts what admissions ask of the prefix cache, and tells the eviction policy of it."""

from collections.abc import Hashable, Sequence

from workbench.kv_cache.eviction import EvictionPolicy
from workbench.kv_cache.prefix_hit import PrefixHit
from workbench.request import Request


class LookupLog:
    """The look-ups of one KV cache.

    Args:
        block_size: Tokens a block.
        eviction: Who may want to know.

    Attributes:
        num_queried_tokens, num_hit_tokens: Tokens of requests that were looked up at their first
            admission, and found.
    """

    def __init__(self, block_size: int, eviction: EvictionPolicy) -> None:
        self._block_size = block_size
        self._eviction = eviction
        kind, base = type(eviction), EvictionPolicy
        self._counts_hits = kind.on_hit is not base.on_hit or kind.on_lookup is not base.on_lookup
        self._counts_drops = kind.on_dropped is not base.on_dropped
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0

    def record(self, request: Request, hit: PrefixHit) -> None:
        """An admitted request was looked up."""
        is_first = request.num_preemptions == 0  # one that comes back finds its own blocks
        if is_first:
            self.num_queried_tokens += request.num_tokens
            self.num_hit_tokens += hit.num_tokens
        if self._counts_hits:
            keys = self._keys(request)
            if is_first:
                self._eviction.on_lookup(keys)
            self._eviction.on_hit(keys[: hit.num_tokens // self._block_size])

    def drop(self, request: Request) -> None:
        """A request has ended before its first admission: it will never be looked up."""
        if self._counts_drops:
            self._eviction.on_dropped(self._keys(request), request.arrival_time)

    def _keys(self, request: Request) -> Sequence[Hashable]:
        assert request.block_hashes is not None
        return request.block_hashes.get(0, (request.num_tokens - 1) // self._block_size)
