"""What Prometheus is told of the engine: vLLM's names, fed by a listener.

Counts what it hears; a token costs a dictionary look-up and two additions. Knows no HTTP and asks
the core nothing. Where a meaning differs from vLLM's, docs/serving/observability.md says so.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from engine.core_messages import CoreInfo, StepStats
from engine.request_listener import RequestListener, RequestRecord
from engine.server.metrics import buckets
from engine.server.metrics.request_histograms import RequestHistograms
from engine.server.metrics.series import Count, FamilySet
from engine.step_messages import StepDetail
from workbench.sampling_params import SamplingParams

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
CACHE_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
WAITING_REASONS = ("capacity", "deferred")


class _Open:
    """What must be remembered of a request that runs."""

    __slots__ = ("last_time", "num_prompt_tokens", "time_before")

    def __init__(self, num_prompt_tokens: int) -> None:
        self.num_prompt_tokens = num_prompt_tokens
        self.last_time = 0.0
        self.time_before = 0.0


class _Total:
    """Follows a total of the core, which starts again from 0 with a new core."""

    __slots__ = ("_last", "_targets")

    def __init__(self, *targets: Count) -> None:
        self._targets = targets
        self._last = 0

    def take(self, total: int) -> None:
        added = total - self._last if total >= self._last else total
        self._last = total
        for target in self._targets:
            target.value += added

    def begin_again(self) -> None:
        """The next total is that of a new core."""
        self._last = 0


class EngineMetrics(RequestListener):
    """The vllm:* metrics of one engine.

    Args:
        info: What the engine is.
        model_name: Value of the label model_name.
        engine: Value of the label engine.
    """

    def __init__(self, info: CoreInfo, model_name: str, engine: str = "0") -> None:
        self._num_blocks = max(info.num_kv_blocks, 1)
        self._families = families = FamilySet({"model_name": model_name, "engine": engine})
        self._open: dict[str, _Open] = {}
        self._stats: StepStats | None = None
        self._queue = (0, 0)
        self._declare_state(families)
        self._declare_cache(families)
        self._declare_tokens(families)
        self._declare_latencies(families)
        self._requests = RequestHistograms(families, info.max_model_len)
        self._declare_speculation(families)
        self._cache_config = _cache_config(info, engine)

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        """Remember the request."""
        self._open[request_id] = _Open(num_prompt_tokens)

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        """Count the step; its totals are read when they are asked for."""
        self._stats = stats
        self._queue = stats.num_waiting, stats.num_compiling
        self._iteration_tokens.observe(stats.num_scheduled_tokens)
        self._computed_prompt_tokens.value += stats.num_prefill_tokens

    def on_queue(self, num_waiting: int, num_compiling: int) -> None:
        """Remember how many wait."""
        self._queue = num_waiting, num_compiling

    def on_first_token(self, request_id: str, latency_s: float) -> None:
        """Count the latency."""
        self._ttft.observe(latency_s)

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        """Count tokens, and the gap before them."""
        self._generation_tokens.value += num_new
        request = self._open.get(request_id)
        if request is None:
            return
        if is_first:
            self._prompt_tokens.value += request.num_prompt_tokens
        elif now > request.last_time:
            self._itl.observe(now - request.last_time)
            request.time_before = request.last_time
        elif request.time_before:
            # another answer of the same request in the same step
            self._itl.observe(now - request.time_before)
        request.last_time = now

    def on_finished(self, record: RequestRecord) -> None:
        """Count the request and its latencies."""
        self._open.pop(record.request_id, None)
        for reason in record.finish_reasons:
            self._success.series(reason).value += 1
        self._requests.observe(record)

    def on_core_dead(self, reason: str) -> None:
        """Keep the totals of the core that is gone."""
        self._read_totals()
        self._stats = None
        self._queue = (0, 0)
        for total in self._totals():
            total.begin_again()

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus samples."""
        self._read_totals()
        self._read_state()
        yield from self._families.collect()
        yield from self._cache_config.collect()

    def _declare_state(self, families: FamilySet) -> None:
        self._running = families.gauge(
            "vllm:num_requests_running", "Requests in the running batch."
        ).series()
        self._waiting = families.gauge(
            "vllm:num_requests_waiting", "Requests that wait to be scheduled."
        ).series()
        by_reason = families.gauge(
            "vllm:num_requests_waiting_by_reason",
            "Requests that wait, by what they wait for: room in the batch and the KV cache "
            "(capacity), or something else that passes (deferred).",
            "reason",
        )
        self._waiting_for = [by_reason.series(reason) for reason in WAITING_REASONS]
        self._kv_usage = families.gauge(
            "vllm:kv_cache_usage_perc", "Share of the KV blocks that requests hold, 0 to 1."
        ).series()

    def _declare_cache(self, families: FamilySet) -> None:
        queries = families.counter(
            "vllm:prefix_cache_queries", "Tokens looked up in the prefix cache."
        ).series()
        self._hits = families.counter(
            "vllm:prefix_cache_hits", "Tokens found in the prefix cache."
        ).series()
        preemptions = families.counter(
            "vllm:num_preemptions", "Times that a request was thrown out of the batch."
        ).series()
        self._queries_total, self._preemptions_total = _Total(queries), _Total(preemptions)

    def _declare_tokens(self, families: FamilySet) -> None:
        self._prompt_tokens = families.counter(
            "vllm:prompt_tokens", "Prompt tokens of requests that have given their first token."
        ).series()
        by_source = families.counter(
            "vllm:prompt_tokens_by_source",
            "Prompt tokens by where their KV came from, counted when it came.",
            "source",
        )
        sources = {source: by_source.series(source) for source in PROMPT_SOURCES}
        self._computed_prompt_tokens = sources["local_compute"]
        cached = families.counter(
            "vllm:prompt_tokens_cached", "Prompt tokens found in a cache."
        ).series()
        by_tier = families.counter(
            "vllm:prompt_tokens_cached_by_source", "The same by the kind of cache.", "source"
        )
        tiers = {tier: by_tier.series(tier) for tier in CACHE_TIERS}
        self._hits_total = _Total(self._hits, sources["local_cache_hit"], cached, tiers["device"])
        self._generation_tokens = families.counter(
            "vllm:generation_tokens", "Tokens generated."
        ).series()
        self._success = families.counter(
            "vllm:request_success", "Answers that have ended, by how.", "finished_reason"
        )
        for reason in FINISHED_REASONS:
            self._success.series(reason)

    def _declare_latencies(self, families: FamilySet) -> None:
        self._iteration_tokens = families.histogram(
            "vllm:iteration_tokens_total", "Tokens scheduled in a step.", buckets.STEP_TOKENS
        ).series()
        self._ttft = families.histogram(
            "vllm:time_to_first_token_seconds",
            "Seconds from arrival to the first token.",
            buckets.TTFT_S,
        ).series()
        self._itl = families.histogram(
            "vllm:inter_token_latency_seconds",
            "Seconds between two steps that gave tokens of one answer.",
            buckets.ITL_S,
        ).series()

    def _declare_speculation(self, families: FamilySet) -> None:
        self._drafts_total, self._draft_tokens_total, self._accepted_total = (
            _Total(families.counter(f"vllm:spec_decode_{name}", documentation).series())
            for name, documentation in (
                ("num_drafts", "Times that a request brought draft tokens."),
                ("num_draft_tokens", "Draft tokens that were verified."),
                ("num_accepted_tokens", "Draft tokens that were kept."),
            )
        )
        self._accepted_at = families.counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Draft tokens that were kept, by their place in the draft.",
            "position",
        )
        self._accepted_at_totals: list[_Total] = []

    def _read_totals(self) -> None:
        stats = self._stats
        if stats is None:
            return
        self._queries_total.take(stats.prefix_queries)
        self._hits_total.take(stats.prefix_hits)
        self._preemptions_total.take(stats.num_preemptions)
        self._drafts_total.take(stats.num_drafts)
        self._draft_tokens_total.take(stats.num_draft_tokens)
        self._accepted_total.take(stats.num_accepted_tokens)
        totals = self._accepted_at_totals
        for place in range(len(totals), len(stats.accepted_at)):
            totals.append(_Total(self._accepted_at.series(str(place))))
        for total, count in zip(totals, stats.accepted_at, strict=False):
            total.take(count)

    def _totals(self) -> tuple[_Total, ...]:
        return (
            *(self._queries_total, self._hits_total, self._preemptions_total),
            *(self._drafts_total, self._draft_tokens_total, self._accepted_total),
            *self._accepted_at_totals,
        )

    def _read_state(self) -> None:
        # the last step cannot know of requests that were aborted after it
        stats = self._stats if self._open else None
        self._running.value = 0 if stats is None else stats.num_running
        waiting, deferred = self._queue if self._open else (0, 0)
        self._waiting.value = waiting
        for series, number in zip(self._waiting_for, (waiting - deferred, deferred), strict=True):
            series.value = number
        self._kv_usage.value = 0 if stats is None else stats.num_used_blocks / self._num_blocks


def _cache_config(info: CoreInfo, engine: str) -> FamilySet:
    """A gauge that is always 1; what it says stands in its labels."""
    num_tokens = info.num_kv_blocks * info.block_size
    facts = {
        "block_size": info.block_size,
        "cache_dtype": info.facts.get("kv_cache_dtype", "auto"),
        "enable_prefix_caching": info.enable_prefix_caching,
        "gpu_memory_utilization": info.facts.get("gpu_memory_utilization"),
        "kv_cache_max_concurrency": num_tokens / info.max_model_len,
        "kv_cache_size_tokens": num_tokens,
        "num_gpu_blocks": info.num_kv_blocks,
        "prefix_caching_hash_algo": info.facts.get("prefix_caching_hash_algo"),
    }
    families = FamilySet({"engine": engine})
    family = families.gauge("vllm:cache_config_info", "What the KV cache is.", *facts)
    family.series(*map(str, facts.values())).value = 1.0
    return families
