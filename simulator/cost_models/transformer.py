"""Adds the parts of a transformer up to the time of a step; the parts come from subclasses.

Knows layers, stages, tensor and expert parallelism, the host's share and swaps. It does not know
how long a part takes.

A step is

    host + swap + layers x (token-wise parts + attention + collectives) + embedding + lm_head

Pipeline stages. The answer is the time of one pass through all stages: a batch is in one stage at
a time, so its layers add up and the hand-overs between stages come on top. That other batches fill
the other stages meanwhile is the executor's business: it starts the next step when the first stage
is free.

Data-parallel ranks share the experts of a mixture-of-experts model. All ranks are taken to carry
this rank's load, and tokens to choose experts uniformly.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf

from simulator.cost_models.base import refuse_far
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig
from simulator.interconnect import AllReduce, Interconnect, MeasuredAllReduce
from simulator.model_config import DTYPE_BYTES, ModelConfig
from simulator.parallel import ParallelConfig
from workbench.errors import ConfigError
from workbench.step_profile import StepShape

Parts = dict[str, float]


class TransformerCostModel(ABC):
    """Base of the models that price a step part by part.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        constants: Achieved shares of the peaks.
        host_overhead_s: Seconds a step that the GPU waits for the host.
        host_overhead_per_request_s: The same for every row of the batch.
        block_size: Tokens a KV block, for swaps.
        all_reduce: File of measured all-reduce times; None: the analytic model.

    Raises:
        ConfigError: Degrees that do not divide the model, or a negative overhead.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        constants: KernelConstants,
        host_overhead_s: float = 0.0,
        host_overhead_per_request_s: float = 0.0,
        block_size: int = 16,
        all_reduce: str | None = None,
    ) -> None:
        model.check_parallel(parallel)
        for name, value in (
            ("host_overhead_s", host_overhead_s),
            ("host_overhead_per_request_s", host_overhead_per_request_s),
        ):
            if value < 0:
                raise ConfigError(f"cost_model.{name}={value} must not be negative")
        self.num_extrapolated = 0
        self.is_repeatable = True
        self.model, self.hardware, self.parallel = model, hardware, parallel
        self.constants = constants
        self._host = host_overhead_s
        self._host_per_request = host_overhead_per_request_s
        self._layers = model.num_hidden_layers
        self._links = Interconnect(hardware, constants.network, constants.network_latency_us * 1e-6)
        self._all_reduce: AllReduce = self._links.all_reduce
        if all_reduce is not None:
            self._all_reduce = MeasuredAllReduce.load(all_reduce, self._links.all_reduce)
        copied = model.kv_bytes_per_token(parallel) * block_size
        self._swap_block = copied / (hardware.host_bandwidth * constants.host_link)
        self._swap_latency = hardware.host_latency_us * 1e-6
        self._token_times: dict[int, float] = {}
        self._sample_times: dict[int, float] = {}
        # limits of what was measured; beyond them steps count as extrapolated
        self._largest_tokens = inf
        self._largest_samples = inf
        self._outside = False

    @abstractmethod
    def layer_parts(self, num_tokens: int) -> Parts:
        """Seconds of the token-wise parts of one layer, e.g. qkv_proj or layernorm."""

    @abstractmethod
    def edge_parts(self, num_tokens: int) -> Parts:
        """Seconds of what precedes and follows the layers: embedding, final norm."""

    @abstractmethod
    def head_parts(self, num_samples: int) -> Parts:
        """Seconds of lm_head and sampler for `num_samples` rows of logits."""

    @abstractmethod
    def attention(
        self, num_decodes: int, decode_context: int, prefills: Sequence[tuple[int, int]]
    ) -> float:
        """Seconds of one layer's attention."""

    def host_time(self, shape: StepShape) -> float:
        """Seconds of `step_time` in which the GPU waits for the host; see CostModel."""
        return self._host + self._host_per_request * shape.num_requests

    def step_time(self, shape: StepShape) -> float:
        """Seconds of a step; see CostModel."""
        prefills = shape.prefills
        decodes = num_tokens = shape.num_decodes
        for query, _ in prefills:
            num_tokens += query
        seconds = self._host
        if self._host_per_request:
            seconds += self._host_per_request * (decodes + len(prefills))
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
        seconds += token_time + sample_time
        seconds += self._layers * self.attention(decodes, shape.decode_context, prefills)
        if (
            self._outside
            or num_tokens > self._largest_tokens
            or shape.num_samples > self._largest_samples
        ):
            self.num_extrapolated += 1
            self._outside = False
        return seconds

    def breakdown(self, shape: StepShape) -> Parts:
        """Seconds of every part of a step; they add up to `step_time`."""
        num_tokens = shape.num_tokens
        parts: Parts = {
            "host": self._host + self._host_per_request * shape.num_requests,
            "swap": 0.0,
        }
        if shape.num_swap_blocks:
            parts["swap"] = self._swap_latency + shape.num_swap_blocks * self._swap_block
        if not num_tokens:
            return parts
        for name, seconds in self.layer_parts(num_tokens).items():
            parts[name] = self._layers * seconds
        parts["collectives"] = self._collective_time(num_tokens)
        parts.update(self.edge_parts(num_tokens))
        parts.update(self.head_parts(shape.num_samples))
        parts["logits_gather"] = self._gather_time(shape.num_samples)
        attention = self.attention(shape.num_decodes, shape.decode_context, shape.prefills)
        parts["attention"] = self._layers * attention
        self._outside = False
        return parts

    def _add_token_time(self, num_tokens: int) -> float:
        if num_tokens > self._largest_tokens:
            cure = "lower scheduler.max_num_batched_tokens or use cost_model=roofline"
            refuse_far("a step's token count", num_tokens, self._largest_tokens, cure)
        seconds = self._layers * sum(self.layer_parts(num_tokens).values())
        seconds += sum(self.edge_parts(num_tokens).values())
        seconds += self._collective_time(num_tokens)
        self._token_times[num_tokens] = seconds
        return seconds

    def _add_sample_time(self, num_samples: int) -> float:
        if num_samples > self._largest_samples:
            cure = "lower scheduler.max_num_seqs or use cost_model=roofline"
            refuse_far("a step's number of samples", num_samples, self._largest_samples, cure)
        seconds = 0.0
        if num_samples:
            seconds = sum(self.head_parts(num_samples).values()) + self._gather_time(num_samples)
        self._sample_times[num_samples] = seconds
        return seconds

    def _collective_time(self, num_tokens: int) -> float:
        """Collectives of all layers and hand-overs between stages, for one batch."""
        model, parallel = self.model, self.parallel
        ranks, group = parallel.tensor_parallel_size, parallel.data_parallel_size
        message = num_tokens * model.hidden_size * DTYPE_BYTES["bfloat16"]
        seconds = (2 * self._layers + 1) * self._all_reduce(message, ranks)
        if isinstance(self._all_reduce, MeasuredAllReduce):
            if self._all_reduce.num_extrapolated:
                self._largest_tokens = min(self._largest_tokens, float(num_tokens - 1))
            self._all_reduce.num_extrapolated = 0
        if model.num_experts and group > 1:
            # tokens are gathered from all ranks before the experts and scattered after them
            seconds += 2 * self._layers * self._links.all_gather(message / ranks, group * ranks)
        stages = parallel.pipeline_parallel_size
        if stages > 1:
            crosses = parallel.world_size > self.hardware.gpus_per_node
            seconds += (stages - 1) * self._links.send_recv(message / ranks, crosses)
        return seconds

    def _gather_time(self, num_samples: int) -> float:
        ranks = self.parallel.tensor_parallel_size
        logits = num_samples * self.model.vocab_size * DTYPE_BYTES["bfloat16"]
        return self._links.all_gather(logits / ranks, ranks)

    def experts_on_rank(self, num_tokens: int) -> tuple[float, float, float]:
        """What the experts of one GPU see of a step of `num_tokens` on every rank.

        Returns:
            (assignments of a token to an expert, experts with at least one, share of an expert's
            width that this GPU holds)
        """
        model, parallel = self.model, self.parallel
        group = parallel.expert_group_size
        tokens = num_tokens * parallel.data_parallel_size
        chosen = model.num_experts_per_tok / model.num_experts
        assignments = float(tokens * model.num_experts_per_tok)
        experts, width = float(model.num_experts), 1.0 / group
        if parallel.enable_expert_parallel:
            experts, assignments, width = experts / group, assignments / group, 1.0
        # with several experts a token at least so many are needed, and no more than assignments
        activated = experts * (1.0 - (1.0 - chosen) ** tokens)
        return assignments, min(activated, assignments), width
