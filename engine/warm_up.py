"""A few steps before the first one that counts: libraries allocate and kernels compile in them."""

from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.build import EngineParts

# Nothing compiles on a CPU: a longer prompt would only take longer.
MAX_CPU_TOKENS = 128
ROOM = 8


def warm_up(parts: EngineParts) -> None:
    """Run a prompt chunk, a mixed step and decodes, and leave nothing behind.

    What they write lands in KV blocks that no request holds and no prefix cache knows.
    """
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
