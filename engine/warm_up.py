"""A few steps before the first one that counts: libraries allocate and kernels compile in them."""

import torch
from torch import nn

from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.build import EngineParts
from engine.layers.linear import Linear
from engine.layers.packed_weight import kernel_sizes

# Steps compile nothing on a CPU but products, which have their own: longer ones would only be slow.
MAX_CPU_TOKENS = 128
MAX_CPU_FLOPS = 50e9
"""What products may cost before the first step, about a second of one core."""
ROOM = 8


def warm_up(parts: EngineParts) -> None:
    """Run a prompt chunk, a mixed step and decodes, and leave nothing behind.

    What they write lands in KV blocks that no request holds and no prefix cache knows.
    """
    if parts.device.type == "cpu":
        prepare_products(parts.model, parts.scheduler_config.max_num_batched_tokens)
    scheduler, runner = parts.scheduler_config, parts.runner
    block_size, num_groups = parts.cache_config.block_size, len(runner.input_batch.block_tables)
    longest = _longest(parts)
    if longest < 2:
        return
    steps = SyntheticSteps(parts.num_blocks, block_size, ROOM, num_groups)
    num_decodes = min(scheduler.max_num_seqs - 1, 4)
    prompt = [Row(longest, 0)]
    mixed = [Row(1, 1)] * num_decodes + [Row(max(longest // 2, 2), 0)]
    for output in (steps.join(prompt), steps.join(mixed), steps.repeat(), steps.leave()):
        runner.execute_model(output)
        runner.sample_tokens(None).result()


def _longest(parts: EngineParts) -> int:
    """Tokens of the longest prompt chunk that leaves room for a few answers."""
    scheduler = parts.scheduler_config
    limits = [
        scheduler.max_num_batched_tokens,
        scheduler.max_model_len or 1,
        (parts.num_blocks - 1) * parts.cache_config.block_size,
    ]
    if parts.device.type == "cpu":
        limits.append(MAX_CPU_TOKENS)
    return min(limits) - ROOM - scheduler.num_speculative_tokens


@torch.inference_mode()
def prepare_products(model: nn.Module, most: int, max_flops: float = MAX_CPU_FLOPS) -> int:
    """Multiply once with every number of rows that a step may have, while that costs little.

    Args:
        model: On a CPU.
        most: Rows of the largest step.
        max_flops: Where to stop.

    Returns:
        Rows of the largest product that was made.
    """
    layers = {
        (layer.weight.shape, layer.weight.dtype, layer.bias is None): layer
        for layer in model.modules()
        if isinstance(layer, Linear)
    }
    done = 0
    for num_rows in kernel_sizes(most):
        max_flops -= sum(2.0 * num_rows * layer.weight.numel() for layer in layers.values())
        if max_flops < 0:
            break
        for layer in layers.values():
            layer(torch.zeros(num_rows, layer.weight.shape[1], dtype=layer.weight.dtype))
        done = num_rows
    return done
