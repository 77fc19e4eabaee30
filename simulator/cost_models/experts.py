"""Which experts of a mixture the tokens of a step reach, and on which GPU.

Knows counts. It does not know what an expert costs. All data-parallel ranks are taken to carry
this rank's load, and tokens to choose experts uniformly.
"""

from dataclasses import dataclass

from simulator.cost_models.cached_memory import CachedMemory
from simulator.hf_config import DTYPE_BYTES
from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig

ROW_BYTES = DTYPE_BYTES["bfloat16"]  # of an element


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What the experts of one GPU see of a step.

    Attributes:
        assignments: Of a token to one of its experts.
        activated: Experts with at least one token.
        width: Share of an expert's width that this GPU holds.
        elsewhere: Assignments of the tokens it sees to experts on other GPUs.
    """

    assignments: float
    activated: float
    width: float
    elsewhere: float = 0.0


def expert_load(model: ModelConfig, parallel: ParallelConfig, num_tokens: float) -> ExpertLoad:
    """The load of a step of `num_tokens` on every rank; the model must have experts."""
    group = parallel.expert_group_size
    tokens = num_tokens * parallel.data_parallel_size
    chosen = model.num_experts_per_tok / model.num_experts
    assignments = float(tokens * model.num_experts_per_tok)
    experts, width, elsewhere = float(model.num_experts), 1.0 / group, 0.0
    if parallel.enable_expert_parallel:
        elsewhere = assignments * (1.0 - 1.0 / group)
        experts, assignments, width = experts / group, assignments / group, 1.0
    # with several experts a token at least so many are needed, and no more than assignments
    activated = experts * (1.0 - (1.0 - chosen) ** tokens)
    return ExpertLoad(assignments, min(activated, assignments), width, elsewhere)


def time_elsewhere(model: ModelConfig, load: ExpertLoad, memory: CachedMemory) -> float:
    """Seconds that a GPU spends on assignments to experts that it does not hold.

    vLLM gathers whole tokens, so its kernels have a row for every assignment (0.19, TritonExperts
    with an expert map): both products write zeros where the expert is elsewhere, the activation and
    the sum over a token's experts take them as any other row. What these two take for the rows of
    its own experts is among those experts' time.
    """
    if not load.elsewhere:
        return 0.0
    width, hidden = model.moe_intermediate_size, model.hidden_size
    zeros = 2 * width + hidden
    activation = 3 * width  # reads two widths, writes one
    summed = hidden * (1.0 + 1.0 / model.num_experts_per_tok)  # reads a row, writes a token
    seconds = memory.seconds(load.elsewhere * zeros * ROW_BYTES)
    for a_row in (activation * ROW_BYTES, summed * ROW_BYTES):
        every = memory.seconds((load.assignments + load.elsewhere) * a_row)
        seconds += every - memory.seconds(load.assignments * a_row)
    return seconds
