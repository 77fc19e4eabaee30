"""The analytic cost model: every part from flops, bytes and a few achieved shares of the peaks.

Needs no measurement of the model, so it prices any transformer on any GPU. It does not know the
quirks of single kernels: expect 5-10 % on a step of a GPU whose constants were fitted.

    product of m x k by k x n:  latency + (compute^p + memory^p)^(1/p)
        compute = 2 m n k / (peak x share), memory = bytes of operands / (bandwidth x share)

Attention is in `attention.py`; norms, activations and rotary embedding move their bytes.
"""

from simulator.cost_models.attention import Attention, AttentionHeads, AttentionRoofline
from simulator.cost_models.cached_memory import CachedMemory
from simulator.cost_models.collectives import Collectives
from simulator.cost_models.experts import expert_load, time_elsewhere
from simulator.cost_models.kernel_constants import KernelConstants
from simulator.cost_models.transformer import (
    EXPERTS,
    LayerParts,
    Parts,
    Pieces,
    TransformerCostModel,
)
from simulator.hardware import HardwareConfig
from simulator.hf_config import DTYPE_BYTES
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig

ACTIVATION_BYTES = 2.0


class Kernels:
    """Analytic times of single kernels on one GPU.

    Args:
        hardware: Peak rates.
        constants: Achieved shares.
        dtype: Of the weights; activations have 16 bits.

    Attributes:
        memory: Prices passes over what has just been written.
    """

    def __init__(
        self, hardware: HardwareConfig, constants: KernelConstants, dtype: str = "bfloat16"
    ) -> None:
        peak = hardware.peak_flops(dtype)
        self._flops = peak * constants.gemm_compute
        self._grouped_flops = peak * constants.moe_compute
        self._bytes = hardware.memory_bandwidth * constants.gemm_memory
        self._power = constants.roofline_exponent
        self._latency = constants.gemm_latency_us * 1e-6
        self._element_bytes = hardware.memory_bandwidth * constants.elementwise_memory
        self._element_latency = constants.elementwise_latency_us * 1e-6
        self._weight_bytes = DTYPE_BYTES[dtype]
        self.memory = CachedMemory(hardware)

    def product(self, flops: float, num_bytes: float) -> float:
        """Seconds of a matrix product that computes `flops` and moves `num_bytes`."""
        return self._combine(flops / self._flops, num_bytes / self._bytes)

    def grouped_product(self, flops: float, num_bytes: float) -> float:
        """Seconds of one product an expert, launched together."""
        return self._combine(flops / self._grouped_flops, num_bytes / self._bytes)

    def _combine(self, compute: float, memory: float) -> float:
        larger, smaller = (compute, memory) if compute > memory else (memory, compute)
        if larger <= 0:
            return 0.0
        # (c^p + m^p)^(1/p), in a form that an infinite p and tiny times do not break
        ratio = (smaller / larger) ** self._power
        return self._latency + larger * float((1.0 + ratio) ** (1.0 / self._power))

    def gemm(self, m: float, n: float, k: float) -> float:
        """Seconds of an m x k activation times a k x n weight."""
        moved = n * k * self._weight_bytes + (m * k + m * n) * ACTIVATION_BYTES
        return self.product(2.0 * m * n * k, moved)

    def elementwise(self, num_bytes: float, kernels: float = 1.0) -> float:
        """Seconds of `kernels` launches that move `num_bytes` in all."""
        return kernels * self._element_latency + num_bytes / self._element_bytes


class RooflineParts(LayerParts):
    """Analytic times of a model's token-wise parts.

    Args:
        model, parallel: What runs, and how it is divided.
        kernels: Times of single kernels.
    """

    def __init__(self, model: ModelConfig, parallel: ParallelConfig, kernels: Kernels) -> None:
        self._model, self._parallel, self._kernels = model, parallel, kernels

    def layer(self, num_tokens: int) -> Parts:
        model, kernels, n = self._model, self._kernels, float(num_tokens)
        ranks = self._parallel.tensor_parallel_size
        heads = model.num_attention_heads // ranks * model.head_dim
        kv = model.kv_heads_per_rank(self._parallel) * model.head_dim
        moved = n * ACTIVATION_BYTES
        parts = {
            "layernorm": kernels.elementwise(moved * 8 * model.hidden_size, 2),
            "qkv_proj": kernels.gemm(n, heads + 2 * kv, model.hidden_size),
            "rotary_emb": kernels.elementwise(moved * 2 * (heads + kv)),
            "o_proj": kernels.gemm(n, model.hidden_size, heads),
        }
        if model.qk_norm:
            parts["qk_norm"] = kernels.elementwise(moved * 2 * (heads + kv), 2)
        moe_share = model.num_moe_layers / model.num_hidden_layers
        if moe_share < 1:
            for name, seconds in self._dense_mlp(n, model.intermediate_size / ranks).items():
                parts[name] = (1 - moe_share) * seconds
        if moe_share > 0:
            parts[EXPERTS] = self.experts(num_tokens)
        return parts

    def experts(self, num_tokens: float) -> float:
        return self._model.num_moe_layers / self._model.num_hidden_layers * self._moe(num_tokens)

    def edge(self, num_tokens: int) -> Parts:
        moved = num_tokens * self._model.hidden_size * ACTIVATION_BYTES
        return {
            "embedding": self._kernels.elementwise(2 * moved),
            "final_layernorm": self._kernels.elementwise(4 * moved),
        }

    def head(self, num_samples: int) -> Parts:
        model = self._model
        vocab = model.vocab_size / self._parallel.tensor_parallel_size
        logits = num_samples * model.vocab_size
        return {
            "lm_head": self._kernels.gemm(num_samples, vocab, model.hidden_size),
            # conversion to 32 bits, softmax and arg-max: ten small kernels, four passes
            "sampler": self._kernels.elementwise(16.0 * logits, 10),
        }

    def _dense_mlp(self, n: float, width: float) -> Parts:
        kernels, hidden = self._kernels, self._model.hidden_size
        return {
            "gate_up_proj": kernels.gemm(n, 2 * width, hidden),
            "act_fn": kernels.elementwise(n * 3 * width * ACTIVATION_BYTES),
            "down_proj": kernels.gemm(n, hidden, width),
        }

    def _moe(self, num_tokens: float) -> float:
        """Router, grouped products over the activated experts, and the weighted sum."""
        model, kernels = self._model, self._kernels
        hidden, n = model.hidden_size, float(num_tokens)
        load = expert_load(model, self._parallel, num_tokens)
        width = model.moe_intermediate_size * load.width
        weights = DTYPE_BYTES[model.dtype]
        seconds = kernels.gemm(n, model.num_experts, hidden) + kernels.elementwise(0.0, 3)
        for outputs, inputs in ((2 * width, hidden), (hidden, width)):
            moved = load.activated * outputs * inputs * weights
            moved += load.assignments * (outputs + inputs) * ACTIVATION_BYTES
            seconds += kernels.grouped_product(2.0 * load.assignments * outputs * inputs, moved)
        touched = load.assignments * (3 * width + 2 * hidden)
        seconds += kernels.elementwise(touched * ACTIVATION_BYTES, 2)
        seconds += time_elsewhere(model, load, kernels.memory)
        if model.shared_expert_intermediate_size:
            ranks = self._parallel.tensor_parallel_size
            shared = model.shared_expert_intermediate_size / ranks
            seconds += sum(self._dense_mlp(n, shared).values())
        return seconds


class RooflineCostModel(TransformerCostModel):
    """Analytic kernels, analytic attention, analytic collectives."""

    def _build(self, constants: KernelConstants) -> Pieces:
        model, hardware, parallel = self.model, self.hardware, self.parallel
        heads = AttentionHeads.of(model, parallel)

        def attention(window: int | None) -> Attention:
            return AttentionRoofline(heads, hardware, constants, window)

        return Pieces(
            RooflineParts(model, parallel, Kernels(hardware, constants, model.dtype)),
            attention,
            Collectives(model, hardware, parallel, constants, self.all_reduce),
        )
