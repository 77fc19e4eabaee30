"""Feed-forward blocks of experts, of which every token uses a few.

Knows routing, grouping of tokens by expert, and how to run the groups on a CPU and a GPU. The
functions that route and group are attributes of the block: on a GPU kernels take their place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers.activation import silu_and_mul
from engine.layers.linear import Linear
from engine.layers.packed_weight import PackedWeight, pack, without_values
from engine.layers.weights import Destination, Destinations, Placement


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """Sizes and checkpoint names of one block of experts.

    `normalize` divides the chosen experts' probabilities by their sum. `block` is the name of the
    block within a layer, `gate`, `up` and `down` are those of an expert's matrices.
    """

    num_experts: int
    experts_per_token: int
    intermediate_size: int
    normalize: bool
    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Pairs of token and expert, ordered by expert.

    order [T · k] int32 or int64: index token · k + choice of the pair at each place; ends
    [num_experts] int32: where each expert's pairs end.
    """

    order: Tensor
    ends: Tensor


Route = Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]
Group = Callable[[Tensor, int], TokenGroups]


def route(router_logits: Tensor, experts_per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The most probable experts of each token and their weights.

    Args:
        router_logits: [T, num_experts].
        experts_per_token: k.
        normalize: whether the k weights are scaled to sum to 1.

    Returns:
        Weights [T, k] float32 and expert ids [T, k] int64, best first.
    """
    probabilities = router_logits.softmax(dim=-1, dtype=torch.float32)
    weights, expert_ids = probabilities.topk(experts_per_token, dim=-1)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, expert_ids


def group_by_expert(expert_ids: Tensor, num_experts: int) -> TokenGroups:
    """Order the pairs of expert_ids [T, k] by expert; no wait for the device, so graphs work."""
    flat = expert_ids.flatten()
    counts = torch.zeros(num_experts, dtype=torch.int32, device=flat.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    return TokenGroups(flat.argsort(stable=True), counts.cumsum(0, dtype=torch.int32))


class SparseMoe(nn.Module):
    """sum over a token's experts e of weight_e · down_e(silu(gate_e x) · up_e x)."""

    def __init__(self, hidden_size: int, config: MoeConfig, placement: Placement) -> None:
        super().__init__()
        experts, width = config.num_experts, config.intermediate_size
        self.config = config
        self.router = Linear(hidden_size, {"gate": experts}, False, placement)
        self.gate_up = placement.empty(experts, 2 * width, hidden_size)
        self.down = placement.empty(experts, hidden_size, width)
        self.route: Route = route
        self.group: Group = group_by_expert
        self._packed: list[tuple[PackedWeight, PackedWeight]] = []

    def destinations(self, layer: str) -> Destinations:
        """Views by checkpoint name, one a matrix of an expert, and those of fused checkpoints."""
        config = self.config
        block = f"{layer}.{config.block}"
        found = self.router.destinations(block)
        gate_ups, downs = [], []
        for index in range(config.num_experts):
            expert = f"{block}.experts.{index}"
            gate, up = self.gate_up[index].chunk(2)
            found[f"{expert}.{config.gate}.weight"] = Destination(gate)
            found[f"{expert}.{config.up}.weight"] = Destination(up)
            found[f"{expert}.{config.down}.weight"] = Destination(self.down[index])
            gate_ups += [f"{expert}.{config.gate}.weight", f"{expert}.{config.up}.weight"]
            downs.append(f"{expert}.{config.down}.weight")
        # transformers 5 can save a block fused, and then always calls it "mlp"
        fused = f"{layer}.mlp.experts"
        found[f"{fused}.gate_up_proj"] = Destination(self.gate_up, tuple(gate_ups))
        found[f"{fused}.down_proj"] = Destination(self.down, tuple(downs))
        if config.block != "mlp":
            gate_name = f"{block}.gate.weight"
            found[f"{layer}.mlp.gate.weight"] = Destination(self.router.weight, (gate_name,))
        return found

    def finalize(self) -> None:
        """Called once, when all weights are in place: takes what is fastest on their device.

        On a GPU that is kernels that route and group, on a CPU experts that are packed, whose
        weights then keep their shapes and dtypes but no values.
        """
        if self.gate_up.is_cuda:
            self.use_kernels()
        for gate_up, down in zip(self.gate_up, self.down, strict=True):
            first, second = pack(gate_up), pack(down)
            if first is None or second is None:
                return
            self._packed.append((first, second))
        self.gate_up, self.down = without_values(self.gate_up), without_values(self.down)

    @property
    def waits_for_device(self) -> bool:
        """Whether a step reads on the host where each expert's tokens end: no graph can hold it."""
        width = self.config.intermediate_size
        return not has_grouped_mm(self.gate_up[0], width)

    def use_kernels(self) -> None:
        """Route and group with our Triton kernels: four launches in place of about a dozen."""
        from kernels.moe.align import align
        from kernels.moe.routing import route

        def group(expert_ids: Tensor, num_experts: int) -> TokenGroups:
            groups = align(expert_ids, num_experts)
            return TokenGroups(groups.order, groups.ends)

        self.route, self.group = route, group

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x [T, hidden]; returns [T, hidden]. Weighted sums are taken in float32."""
        config = self.config
        weights, expert_ids = self.route(self.router(x), config.experts_per_token, config.normalize)
        groups = self.group(expert_ids, config.num_experts)
        inputs = x[groups.order // config.experts_per_token]
        outputs = self._run(inputs, groups.ends)
        pairs = torch.empty_like(outputs)
        pairs[groups.order] = outputs
        pairs = pairs.view(len(x), config.experts_per_token, x.shape[1])
        return torch.einsum("tkh,tk->th", pairs.float(), weights.float()).to(x.dtype)

    def _run(self, inputs: Tensor, ends: Tensor) -> Tensor:
        if self._packed:
            return run_packed(inputs, ends, self._packed)
        run = run_grouped if has_grouped_mm(inputs, self.config.intermediate_size) else run_each
        return run(inputs, ends, self.gate_up, self.down)


def has_grouped_mm(x: Tensor, intermediate_size: int) -> bool:
    """Whether torch multiplies all groups at once for x [T, hidden].

    It does in bf16 on GPUs of compute capability 9 and 10, if rows are multiples of 16 bytes;
    elsewhere it goes from group to group, and waits for the device to say where they end.
    """
    if x.device.type != "cuda" or x.dtype != torch.bfloat16:
        return False
    if x.shape[1] % 8 or intermediate_size % 8:
        return False
    major = torch.cuda.get_device_capability(x.device)[0]
    return major in (9, 10) if hasattr(functional, "grouped_mm") else major == 9


def run_grouped(inputs: Tensor, ends: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """All experts in two grouped products; same arguments and result as `run_each`."""
    grouped_mm = getattr(functional, "grouped_mm", None) or torch._grouped_mm
    hidden = silu_and_mul(grouped_mm(inputs, gate_up.transpose(1, 2), offs=ends))
    return grouped_mm(hidden, down.transpose(1, 2), offs=ends)


def run_each(inputs: Tensor, ends: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Each expert that has tokens, one after the other.

    Args:
        inputs: [P, hidden], ordered by expert.
        ends: [num_experts], where each expert's rows end.
        gate_up: [num_experts, 2 · intermediate, hidden].
        down: [num_experts, hidden, intermediate].

    Returns:
        [P, hidden].
    """
    outputs = torch.empty_like(inputs)
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            hidden = silu_and_mul(functional.linear(inputs[start:end], gate_up[expert]))
            outputs[start:end] = functional.linear(hidden, down[expert])
        start = end
    return outputs


def run_packed(
    inputs: Tensor, ends: Tensor, experts: Sequence[tuple[PackedWeight, PackedWeight]]
) -> Tensor:
    """As `run_each`, with the two packed matrices of every expert."""
    outputs = torch.empty_like(inputs)
    start = 0
    for (gate_up, down), end in zip(experts, ends.tolist(), strict=True):
        if end > start:
            hidden = silu_and_mul(gate_up.linear(inputs[start:end], None))
            outputs[start:end] = down.linear(hidden, None)
        start = end
    return outputs
