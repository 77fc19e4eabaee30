"""Turns the requests of a workload into requests of an engine, with the keys of their blocks."""

from collections.abc import Hashable, Sequence

from workbench.config import CacheConfig
from workbench.kv_cache.block_hash import (
    BlockHashes,
    KnownBlockHashes,
    PrivateBlockHashes,
    TokenBlockHashes,
    keys_from_hash_ids,
)
from workbench.request import Request
from workbench.workload.base import WorkloadRequest


class RequestFactory:
    """Makes requests for engines with one cache configuration.

    Args:
        config: Block size and prefix caching.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._config = config

    def request(self, item: WorkloadRequest, ordinal: int) -> Request:
        """The request; `ordinal` is its number in the run."""
        return Request(
            item.request_id,
            item.num_prompt_tokens,
            item.num_output_tokens,
            item.arrival_time,
            block_hashes=self._block_hashes(item, ordinal),
            priority=item.priority,
            client_id=item.client_id,
            session_id=item.session_id,
            deadline=item.deadline,
        )

    def prompt_keys(self, item: WorkloadRequest, ordinal: int) -> Sequence[Hashable]:
        """The keys that the request's admission looks up."""
        hashes = self._block_hashes(item, ordinal)
        size = self._config.block_size
        return () if hashes is None else hashes.get(0, (item.num_prompt_tokens - 1) // size)

    def _block_hashes(self, item: WorkloadRequest, ordinal: int) -> BlockHashes | None:
        config = self._config
        if not config.enable_prefix_caching:
            return None
        size = config.block_size
        num_prompt_blocks = item.num_prompt_tokens // size
        if item.hash_ids is not None:
            ids, num_blocks = item.hash_ids, num_prompt_blocks
            if item.output_hash_ids:
                ids = ids + item.output_hash_ids
                num_blocks = (item.num_prompt_tokens + item.num_output_tokens) // size
            keys = keys_from_hash_ids(ids, item.hash_block_size, size, num_blocks)
            return KnownBlockHashes(ordinal, keys, min(num_prompt_blocks, len(keys)))
        if item.prompt_token_ids is not None:
            algorithm = config.prefix_caching_hash_algo
            hashes = TokenBlockHashes(item.prompt_token_ids, [], size, algorithm)
            return KnownBlockHashes(ordinal, hashes.prompt(), num_prompt_blocks)
        return PrivateBlockHashes(ordinal)


class RoutedRequest:
    """A request as a router sees it."""

    __slots__ = ("block_hashes", "client_id", "num_prompt_tokens", "request_id", "session_id")

    def __init__(self, item: WorkloadRequest, request: Request) -> None:
        self.request_id = item.request_id
        self.num_prompt_tokens = item.num_prompt_tokens
        self.client_id = item.client_id
        self.session_id = item.session_id
        self.block_hashes = request.block_hashes.prompt() if request.block_hashes else ()
