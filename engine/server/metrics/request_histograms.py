"""The histograms that a request enters when it has ended: its tokens, parameters and latencies.

Knows the life of one request; knows no step.
"""

from collections.abc import Callable, Sequence

from engine.request_listener import RequestRecord
from engine.server.metrics import buckets
from engine.server.metrics.series import Distribution, FamilySet

COMPLETED = frozenset({"stop", "length"})


class RequestHistograms:
    """One histogram a fact of a request.

    Args:
        families: Where they are declared.
        max_model_len: Most tokens of a request, for the buckets.
    """

    def __init__(self, families: FamilySet, max_model_len: int) -> None:
        self._families = families
        self._declare_tokens(buckets.tokens_up_to(max_model_len))
        self._declare_latencies()

    def observe(self, record: RequestRecord) -> None:
        """Take in a request that has ended.

        One that never ran leaves no trace here; latencies are those of requests that gave a token,
        and what needs the whole answer is told only of those that completed.
        """
        if record.scheduled_time is None:
            return
        self._prompt_tokens.observe(record.num_prompt_tokens)
        self._generation_tokens.observe(record.num_output_tokens)
        self._computed.observe(record.num_prompt_tokens - record.num_cached_tokens)
        self._preemptions.observe(record.num_preemptions)
        self._n.observe(record.params.n)
        self._longest.observe(record.longest_output)
        if record.params.max_tokens is not None:
            self._max_tokens.observe(record.params.max_tokens)
        self._queue_s.observe(record.scheduled_time - record.arrival_time)
        self._observe_latencies(record, record.scheduled_time)

    def _observe_latencies(self, record: RequestRecord, scheduled: float) -> None:
        first, last = record.first_token_time, record.last_token_time
        if first is None or last is None:
            return
        self._prefill_s.observe(first - scheduled)
        if not COMPLETED.issuperset(record.finish_reasons):
            return
        self._e2e_s.observe(record.finish_time - record.arrival_time)
        self._inference_s.observe(last - scheduled)
        self._decode_s.observe(last - first)
        num_gaps = record.longest_output - 1
        self._tpot_s.observe((last - first) / num_gaps if num_gaps > 0 else 0.0)

    def _declare_tokens(self, bounds: tuple[int, ...]) -> None:
        tokens = self._declare_with(bounds)
        self._prompt_tokens = tokens("request_prompt_tokens", "Prompt tokens of a request.")
        self._generation_tokens = tokens(
            "request_generation_tokens", "Tokens of all answers of a request."
        )
        self._longest = tokens(
            "request_max_num_generation_tokens", "Tokens of the longest answer of a request."
        )
        self._max_tokens = tokens("request_params_max_tokens", "The parameter max_tokens.")
        self._computed = tokens(
            "request_prefill_kv_computed_tokens", "Prompt tokens that were in no cache."
        )
        self._n = self._declare_with(buckets.ANSWERS)("request_params_n", "The parameter n.")
        self._preemptions = self._declare_with(buckets.PREEMPTIONS)(
            "request_num_preemptions", "Times that a request was thrown out of the batch."
        )

    def _declare_latencies(self) -> None:
        self._tpot_s = self._declare_with(buckets.ITL_S)(
            "request_time_per_output_token_seconds",
            "Mean seconds between the tokens of an answer, 0 for a single token.",
        )
        seconds = self._declare_with(buckets.REQUEST_S)
        self._e2e_s = seconds("e2e_request_latency_seconds", "Seconds from arrival to the end.")
        self._queue_s = seconds(
            "request_queue_time_seconds", "Seconds from arrival until it first ran."
        )
        self._inference_s = seconds(
            "request_inference_time_seconds", "Seconds from its first step to its last token."
        )
        self._prefill_s = seconds(
            "request_prefill_time_seconds", "Seconds from its first step to its first token."
        )
        self._decode_s = seconds(
            "request_decode_time_seconds", "Seconds from its first token to its last one."
        )

    def _declare_with(self, bounds: Sequence[float]) -> Callable[[str, str], Distribution]:
        def declare(name: str, documentation: str) -> Distribution:
            return self._families.histogram(f"vllm:{name}", documentation, bounds).series()

        return declare
