"""Adds the parts of a transformer up to the time of a step.

Knows layers, the host's share and swaps. It does not know how long a part takes: a cost model is
this sum over three pieces, and the models differ in nothing but the pieces that they build.

    step = host + swap + gap + embedding + lm_head
           + layers x (token-wise parts + attention + collectives)

Pipeline stages. The answer is the time of one pass through all stages: a batch is in one stage at
a time, so its layers add up and the hand-overs between stages come on top. That other batches fill
the other stages meanwhile is the executor's business: it starts the next step when the first stage
is free.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any, NamedTuple

from simulator.bounds import check_count, check_number
from simulator.cost_models.attention import Attention, AttentionHeads, HybridAttention
from simulator.cost_models.base import CostModel, refuse_far
from simulator.cost_models.captured_graphs import CapturedGraphs, usual_sizes
from simulator.cost_models.collectives import Collectives
from simulator.cost_models.kernel_constants import KernelConstants, constants_for
from simulator.cost_models.uneven_rows import UnevenRows
from simulator.hardware import HardwareConfig
from simulator.memory import block_bytes, num_kv_groups
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

Parts = dict[str, float]
EXPERTS = "moe"  # the part that data-parallel ranks share


class LayerParts(ABC):
    """Prices what does not look at contexts.

    Attributes:
        largest_tokens, largest_samples: Limits of what was measured.
    """

    largest_tokens: float = inf
    largest_samples: float = inf

    @abstractmethod
    def layer(self, num_tokens: int) -> Parts:
        """Seconds of the token-wise parts of one layer, e.g. qkv_proj or layernorm."""

    def experts(self, num_tokens: float) -> float:
        """Seconds of the experts in the mean layer, part `EXPERTS` of `layer`.

        Args:
            num_tokens: Of a rank; all data-parallel ranks are taken to have as many.
        """
        raise NotImplementedError(f"{type(self).__name__} does not price experts apart")

    @abstractmethod
    def edge(self, num_tokens: int) -> Parts:
        """Seconds of what precedes and follows the layers: embedding, final norm."""

    @abstractmethod
    def head(self, num_samples: int) -> Parts:
        """Seconds of lm_head and sampler for `num_samples` rows of logits, at least 1."""


class Pieces(NamedTuple):
    """What a cost model is made of.

    parts: Token-wise parts.
    attention: Makes one layer's attention with a window; None: without one.
    collectives: None where they are among the parts.
    """

    parts: LayerParts
    attention: Callable[[int | None], Attention]
    collectives: Collectives | None


@dataclass(eq=False, repr=False)
class TransformerCostModel(CostModel):
    """Base of the models that price a step part by part; these are the settings of all of them.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        constants: Single values of KernelConstants that replace the GPU's own, or a whole record.
        host_overhead_s: Seconds a step that the GPU waits for the host.
        host_overhead_per_request_s: The same for every row of the batch.
        block_size: Tokens a KV block, for swaps.
        all_reduce: File of measured all-reduce times; None: the analytic model.
        uneven_rows: Price the longest decode row apart from the mean one (see UnevenRows).
        captured_len: Keys that decode kernels were captured for in graphs (vLLM: max_model_len);
            None: they see the real lengths. Read with `uneven_rows`.
        captured_tokens: Most tokens of a step that runs as a captured graph. Such a step is padded
            to the next size of which there is a graph (see `usual_sizes`).
        captured_sizes: Tokens of the steps of which there are graphs, in place of the usual sizes.
        launch_gap_s: Seconds that the GPU waits for launches in a step that runs as no captured
            graph, whatever the host prepares beforehand.
        sliding_window: Tokens of attention of every layer; None: the model's own window.
        hybrid_window: Tokens of attention of half of the layers; the others see all.

    Raises:
        ConfigError: Degrees that do not divide the model, or a setting out of range.
    """

    model: ModelConfig
    hardware: HardwareConfig
    parallel: ParallelConfig
    _: KW_ONLY
    constants: Mapping[str, Any] | KernelConstants | None = None
    host_overhead_s: float = 0.0
    host_overhead_per_request_s: float = 0.0
    block_size: int = 16
    all_reduce: str | None = None
    sliding_window: int | None = None
    hybrid_window: int | None = None
    uneven_rows: bool = False
    captured_len: int | None = None
    captured_tokens: int = 0
    captured_sizes: Sequence[int] | None = None
    launch_gap_s: float = 0.0

    def __post_init__(self) -> None:
        self._check()
        constants = constants_for(self.hardware.name, self.constants)
        pieces = self._build(constants)
        self._parts, self._collectives = pieces.parts, pieces.collectives
        self._attention = self._windowed(pieces.attention)
        self.wants_longest_decode = self.uneven_rows
        self._uneven = UnevenRows(
            AttentionHeads.of(self.model, self.parallel),
            self.hardware,
            constants,
            self.sliding_window or self.model.sliding_window,
            self.captured_len,
        )
        sizes = self.captured_sizes
        self._graphs = CapturedGraphs(usual_sizes(self.captured_tokens) if sizes is None else sizes)
        self._host, self._host_row = self.host_overhead_s, self.host_overhead_per_request_s
        self._layers = self.model.num_hidden_layers
        groups = num_kv_groups(self.hybrid_window)
        copied = block_bytes(self.model, self.parallel, self.block_size, groups)
        self._swap_block = copied / (self.hardware.host_bandwidth * constants.host_link)
        self._swap_latency = self.hardware.host_latency_us * 1e-6
        self._largest_tokens, self._largest_samples = self._limits()
        self.is_bounded = self._attention.is_bounded or self._largest_tokens < inf
        self.is_bounded = self.is_bounded or self._largest_samples < inf
        self._token_times: dict[int, float] = {}
        self._sample_times: dict[int, float] = {}
        self._own_times: dict[int, float] = {}

    @abstractmethod
    def _build(self, constants: KernelConstants) -> Pieces:
        """What the model is made of; called once, after the settings were checked."""

    def _check(self) -> None:
        self.model.check_parallel(self.parallel)
        check_count("cost_model.captured_tokens", self.captured_tokens, 0)
        for name in ("host_overhead_s", "host_overhead_per_request_s", "launch_gap_s"):
            check_number(f"cost_model.{name}", getattr(self, name))
        for name in ("block_size", "sliding_window", "hybrid_window", "captured_len"):
            if getattr(self, name) is not None:
                check_count(f"cost_model.{name}", getattr(self, name))
        if self.sliding_window is not None and self.hybrid_window is not None:
            raise ConfigError(
                f"cost_model.sliding_window={self.sliding_window} and"
                f" cost_model.hybrid_window={self.hybrid_window} exclude each other: set one"
            )

    def _windowed(self, attention: Callable[[int | None], Attention]) -> Attention:
        if self.hybrid_window is not None:
            return HybridAttention(attention(None), attention(self.hybrid_window))
        return attention(self.sliding_window or self.model.sliding_window)

    def _limits(self) -> tuple[float, float]:
        tokens = self._parts.largest_tokens
        if self._collectives is not None:
            tokens = min(tokens, self._collectives.largest_tokens)
        return tokens, self._parts.largest_samples

    def host_time(self, shape: StepShape) -> float:
        """Seconds of `step_time` in which the GPU waits for the host; see CostModel."""
        return self._host + self._host_row * shape.num_requests

    def step_time(self, shape: StepShape) -> float:
        """Seconds of a step; see CostModel."""
        prefills = shape.prefills
        decodes = num_tokens = shape.num_decodes
        for query, _ in prefills:
            num_tokens += query
        seconds = self._host
        if self._host_row:
            seconds += self._host_row * (decodes + len(prefills))
        if shape.num_swap_blocks:
            seconds += self._swap_latency + shape.num_swap_blocks * self._swap_block
        if not num_tokens:
            return seconds
        token_time = self._token_times.get(num_tokens)
        if token_time is None:
            token_time = self._add_token_time(num_tokens)
        sample_time = self._sample_times.get(shape.num_samples)
        if sample_time is None:
            sample_time = self._add_sample_time(shape.num_samples)
        context = shape.decode_context
        attention = self._attention.time(decodes, context, prefills)
        if shape.longest_decode and self.uneven_rows:
            longest = shape.longest_decode
            attention = self._uneven.time(attention, decodes, context, prefills, longest)
        return seconds + token_time + sample_time + self._layers * attention

    def group_step_time(self, shapes: Sequence[StepShape]) -> float:
        """Seconds of one step of ranks that share their experts; see CostModel.

        Each layer waits for the slowest attention, and computes the tokens of all ranks. While all
        ranks run captured graphs, each is padded to the size of the largest; else none is padded.
        """
        largest = max(shape.num_tokens for shape in shapes)
        if not self.model.num_moe_layers:
            return super().group_step_time(shapes)
        seconds = self._host
        if largest <= self._graphs.largest:
            computed = [self._graphs.padded(largest)] * len(shapes)
        else:
            computed = [max(1, shape.num_tokens) for shape in shapes]
            seconds += self.launch_gap_s
        own = max(
            self._own_time(shape, num_tokens)
            for shape, num_tokens in zip(shapes, computed, strict=True)
        )
        # an equal share of the tokens of all, as the parts take it
        share = sum(computed) / self.parallel.data_parallel_size
        seconds += own + self._layers * self._parts.experts(share)
        if self._collectives is not None:
            seconds += self._collectives.token_time(max(computed))
        return seconds

    def _own_time(self, shape: StepShape, computed: int) -> float:
        """Seconds that one rank computes on its own: all but experts and collectives."""
        seconds = self._own_times.get(computed)
        if seconds is None:
            parts = sum(s for name, s in self._parts.layer(computed).items() if name != EXPERTS)
            seconds = self._layers * parts + sum(self._parts.edge(computed).values())
            self._own_times[computed] = seconds
        rows = shape.num_decodes, shape.decode_context, shape.prefills
        attention = self._attention.time(*rows)
        if shape.longest_decode and self.uneven_rows:
            attention = self._uneven.time(attention, *rows, shape.longest_decode)
        samples = self._sample_times.get(shape.num_samples)
        if samples is None:
            samples = self._add_sample_time(shape.num_samples)
        return seconds + samples + self._layers * attention

    def is_extrapolated(self, shape: StepShape) -> bool:
        return (
            shape.num_tokens > self._largest_tokens
            or shape.num_samples > self._largest_samples
            or self._attention.is_extrapolated(
                shape.num_decodes, shape.decode_context, shape.prefills
            )
        )

    def breakdown(self, shape: StepShape) -> Parts:
        """Seconds of every part of a step; they add up to `step_time`."""
        num_tokens = shape.num_tokens
        parts: Parts = {"host": self.host_time(shape), "swap": 0.0}
        if shape.num_swap_blocks:
            parts["swap"] = self._swap_latency + shape.num_swap_blocks * self._swap_block
        if not num_tokens:
            return parts
        parts["launch_gap"] = self.launch_gap_s if num_tokens > self._graphs.largest else 0.0
        computed = self._graphs.padded(num_tokens)
        for name, seconds in self._parts.layer(computed).items():
            parts[name] = self._layers * seconds
        parts.update(self._parts.edge(computed))
        if shape.num_samples:
            parts.update(self._parts.head(shape.num_samples))
        if self._collectives is not None:
            parts["collectives"] = self._collectives.token_time(computed)
            parts["logits_gather"] = self._collectives.sample_time(shape.num_samples)
        rows = shape.num_decodes, shape.decode_context, shape.prefills
        attention = self._attention.time(*rows)
        if shape.longest_decode and self.uneven_rows:
            attention = self._uneven.time(attention, *rows, shape.longest_decode)
        parts["attention"] = self._layers * attention
        return parts

    def _add_token_time(self, num_tokens: int) -> float:
        cure = "lower scheduler.max_num_batched_tokens or use cost_model=roofline"
        refuse_far("a step's token count", num_tokens, self._largest_tokens, cure)
        computed = self._graphs.padded(num_tokens)
        seconds = self._layers * sum(self._parts.layer(computed).values())
        seconds += sum(self._parts.edge(computed).values())
        if self._collectives is not None:
            seconds += self._collectives.token_time(computed)
        if num_tokens > self._graphs.largest:
            seconds += self.launch_gap_s
        self._token_times[num_tokens] = seconds
        return seconds

    def _add_sample_time(self, num_samples: int) -> float:
        cure = "lower scheduler.max_num_seqs or use cost_model=roofline"
        refuse_far("a step's number of samples", num_samples, self._largest_samples, cure)
        seconds = sum(self._parts.head(num_samples).values()) if num_samples else 0.0
        if self._collectives is not None:
            seconds += self._collectives.sample_time(num_samples)
        self._sample_times[num_samples] = seconds
        return seconds
