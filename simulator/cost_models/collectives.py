"""What the GPUs of a replica say to each other in a step.

Knows which layer sends what. It does not know how fast a link is: `interconnect.py` does.
"""

from math import inf

from simulator.cost_models.kernel_constants import KernelConstants
from simulator.hardware import HardwareConfig
from simulator.hf_config import DTYPE_BYTES
from simulator.interconnect import AllReduce, Interconnect, MeasuredAllReduce
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig


class Collectives:
    """Seconds of the collectives of one step.

    Args:
        model, hardware, parallel: What runs, on what, and how it is divided.
        constants: Achieved share of the links.
        all_reduce: File of measured all-reduce times; None: the analytic model.

    Attributes:
        largest_tokens: Most tokens of a step whose all-reduce was measured.
    """

    def __init__(
        self,
        model: ModelConfig,
        hardware: HardwareConfig,
        parallel: ParallelConfig,
        constants: KernelConstants,
        all_reduce: str | None = None,
    ) -> None:
        self._model, self._parallel = model, parallel
        self._links = Interconnect(hardware, constants.network, constants.network_latency_us * 1e-6)
        self._crosses_nodes = parallel.world_size > hardware.gpus_per_node
        self._token_bytes = model.hidden_size * DTYPE_BYTES["bfloat16"]
        self._all_reduce: AllReduce = self._links.all_reduce
        self._gather: AllReduce = self._links.all_gather
        self._gather_logits: AllReduce = self._links.all_gather
        self.largest_tokens = inf
        if all_reduce is not None:
            measured = MeasuredAllReduce.load(all_reduce, self._links.all_reduce)
            self._all_reduce = measured
            if measured.knows(parallel.expert_group_size):
                self._gather = measured.all_gather
            if measured.knows(parallel.tensor_parallel_size):
                self._gather_logits = measured.all_gather
            largest = measured.largest(parallel.tensor_parallel_size)
            self.largest_tokens = largest // self._token_bytes

    def token_time(self, num_tokens: int) -> float:
        """Seconds of all layers' collectives and of the hand-overs between stages.

        Raises:
            CostModelError: A message far larger than any that was measured.
        """
        model, parallel = self._model, self._parallel
        ranks, group = parallel.tensor_parallel_size, parallel.data_parallel_size
        layers, message = model.num_hidden_layers, num_tokens * self._token_bytes
        # after attention, after the feed-forward part, and once after the embedding
        seconds = (2 * layers + 1) * self._all_reduce(message, ranks)
        if model.num_moe_layers and group > 1:
            # tokens are gathered from all ranks before the experts, with what the router says of
            # them, and scattered after them
            routed = message * (1.0 + model.num_experts / model.hidden_size)
            gather = self._gather(routed / ranks, group * ranks)
            scatter = self._gather(message / ranks, group * ranks)
            seconds += model.num_moe_layers * (gather + scatter)
        stages = parallel.pipeline_parallel_size
        if stages > 1:
            hand_over = self._links.send_recv(message / ranks, self._crosses_nodes)
            seconds += (stages - 1) * hand_over
        return seconds

    def sample_time(self, num_samples: int) -> float:
        """Seconds until every GPU holds the logits of `num_samples` rows."""
        ranks = self._parallel.tensor_parallel_size
        logits = num_samples * self._model.vocab_size * DTYPE_BYTES["bfloat16"]
        return self._gather_logits(logits / ranks, ranks)
