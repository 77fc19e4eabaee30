"""Prefix caching in whole simulations: what is shared, by which keys, and oracles of eviction."""

import pytest

from simulator.simulation import ClusterConfig, Policies
from tests.simulator.small_runs import Follow, random_requests, simulate
from workbench.errors import ConfigError
from workbench.kv_cache.eviction import BeladyEviction, LRUEviction
from workbench.router import LongestPrefix
from workbench.workload.base import WorkloadRequest


def test_a_shared_prefix_is_computed_once_and_routed_to_where_it_is() -> None:
    ids = tuple(range(10))
    requests = [
        WorkloadRequest(str(i), 10.0 * i, 168, 3, hash_ids=ids, hash_block_size=16)
        for i in range(4)
    ]
    result = simulate(
        requests, router=LongestPrefix(), cluster=ClusterConfig(replicas=3), num_blocks=40
    )
    assert [r.cached_tokens for r in result.records] == [0, 160, 160, 160]
    assert {r.replica for r in result.records[1:]} == {result.records[0].replica}
    assert result.counters["prefix_hit_tokens"] == 480
    assert result.counters["prefix_queries_tokens"] == 4 * 168


def test_real_tokens_share_and_an_answer_becomes_a_prefix() -> None:
    first, second = tuple(range(40)), tuple(range(32)) + (999,)
    requests = [
        WorkloadRequest("a", 0.0, 40, 2, prompt_token_ids=first),
        WorkloadRequest("b", 5.0, 33, 2, prompt_token_ids=second),
        WorkloadRequest(
            "c", 10.0, 32, 33, hash_ids=(7, 8), hash_block_size=16, output_hash_ids=(9, 10)
        ),
        WorkloadRequest("d", 15.0, 70, 1, hash_ids=(7, 8, 9, 10, 11), hash_block_size=16),
    ]
    for algorithm in ("sha256", "blake2b"):
        result = simulate(requests, cache={"prefix_caching_hash_algo": algorithm})
        assert [r.cached_tokens for r in result.records] == [0, 32, 0, 64]


def test_a_trace_block_size_may_be_larger_or_smaller_than_the_kv_block() -> None:
    requests = [
        WorkloadRequest(str(i), 5.0 * i, 65, 1, hash_ids=tuple(range(3)), hash_block_size=32)
        for i in range(2)
    ]
    for block_size, cached in ((8, 64), (16, 64), (32, 64), (64, 64), (128, 0)):
        result = simulate(requests, cache={"block_size": block_size})
        assert result.records[1].cached_tokens == cached, block_size
    with pytest.raises(ConfigError, match=r"block_size=48 .* hash_block_size=32: one must divide"):
        simulate(requests, cache={"block_size": 48})


def test_an_oracle_asks_for_a_run_whose_future_is_known() -> None:
    oracle = Policies(eviction=BeladyEviction)
    with pytest.raises(ConfigError, match=r"set cluster\.replicas=1"):
        simulate(random_requests(0, 5), policies=oracle, cluster=ClusterConfig(replicas=2))
    with pytest.raises(ConfigError, match="eviction=lru"):
        simulate(Follow(random_requests(0, 5)), policies=oracle)


def test_an_oracle_that_is_told_its_future_hits_at_least_as_often_as_lru() -> None:
    requests = random_requests(seed=3, count=120, rate=4.0, num_groups=6)
    hits = {
        policy: simulate(
            requests,
            policies=Policies(eviction=policy),
            scheduler={"max_num_seqs": 1},
            num_blocks=60,
        ).counters["prefix_hit_tokens"]
        for policy in (BeladyEviction, LRUEviction)
    }
    assert 0 < hits[LRUEviction] <= hits[BeladyEviction]
