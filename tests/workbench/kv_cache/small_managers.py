"""Small KV caches for the tests, and requests whose blocks have keys of one letter."""

from typing import Any

from workbench.config import CacheConfig
from workbench.kv_cache.block_hash import KnownBlockHashes
from workbench.kv_cache.eviction import EvictionPolicy, LRUEviction
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.request import Request


def make_manager(
    num_blocks: int = 20,
    *,
    watermark: float = 0.0,
    eviction: EvictionPolicy | None = None,
    max_in_flight_tokens: int = 16,
    **cache: Any,
) -> KVCacheManager:
    return KVCacheManager(
        CacheConfig(**{"block_size": 4} | cache),
        num_blocks,
        max_model_len=1000,
        max_in_flight_tokens=max_in_flight_tokens,
        eviction=LRUEviction() if eviction is None else eviction,
        watermark=watermark,
    )


def make_request(name: str, num_tokens: int, keys: str = "") -> Request:
    ordinal = sum(map(ord, name))
    hashes = KnownBlockHashes(ordinal, list(keys), min(len(keys), num_tokens // 4))
    return Request(name, num_tokens, 50, block_hashes=hashes)


def compute(manager: KVCacheManager, request: Request, num_tokens: int | None = None) -> None:
    """Admit a request and compute its prompt in one step."""
    hit = manager.get_computed_blocks(request)
    num_tokens = request.num_tokens if num_tokens is None else num_tokens
    blocks = manager.admit_slots(request, num_tokens - hit.num_tokens, hit)
    assert blocks is not None
    manager.record_lookup(request, hit)
    request._num_computed_tokens = num_tokens
