"""What the kernels of mixtures of experts compute, in float64 and plainly: the tests' oracle."""

import torch
from torch import Tensor


def route(router_logits: Tensor, experts_per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Softmax over all experts, the k largest (lower expert first if equal), normalised or not."""
    probabilities = router_logits.double().softmax(dim=-1)
    order = router_logits.double().sort(dim=-1, descending=True, stable=True).indices
    expert_ids = order[:, :experts_per_token]
    weights = probabilities.gather(1, expert_ids)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, expert_ids


def align(
    expert_ids: Tensor, num_experts: int, block_size: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """order, places, counts and ends of `ExpertOrder`, pair by pair."""
    pairs: list[list[int]] = [[] for _ in range(num_experts)]
    for pair, expert in enumerate(expert_ids.flatten().tolist()):
        pairs[expert].append(pair)
    no_pair = expert_ids.numel()
    order: list[int] = []
    ends = []
    for mine in pairs:
        order += mine + [no_pair] * (-len(mine) % block_size)
        ends.append(len(order))
    if block_size > 1:
        most = no_pair + num_experts * (block_size - 1)
        order += [no_pair] * (-(-most // block_size) * block_size - len(order))
    places = [0] * no_pair
    for place, pair in enumerate(order):
        if pair < no_pair:
            places[pair] = place
    counts = [len(mine) for mine in pairs]

    def put(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=expert_ids.device)

    return put(order), put(places), put(counts), put(ends)
