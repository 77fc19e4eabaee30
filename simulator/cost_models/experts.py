"""Which experts of a mixture the tokens of a step reach, and on which GPU.

Knows counts. It does not know what an expert costs. All data-parallel ranks are taken to carry
this rank's load, and tokens to choose experts uniformly.
"""

from dataclasses import dataclass

from simulator.model_config import ModelConfig
from simulator.parallel import ParallelConfig


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What the experts of one GPU see of a step.

    Attributes:
        assignments: Of a token to one of its experts.
        activated: Experts with at least one token.
        width: Share of an expert's width that this GPU holds.
    """

    assignments: float
    activated: float
    width: float


def expert_load(model: ModelConfig, parallel: ParallelConfig, num_tokens: float) -> ExpertLoad:
    """The load of a step of `num_tokens` on every rank; the model must have experts."""
    group = parallel.expert_group_size
    tokens = num_tokens * parallel.data_parallel_size
    chosen = model.num_experts_per_tok / model.num_experts
    assignments = float(tokens * model.num_experts_per_tok)
    experts, width = float(model.num_experts), 1.0 / group
    if parallel.enable_expert_parallel:
        experts, assignments, width = experts / group, assignments / group, 1.0
    # with several experts a token at least so many are needed, and no more than assignments
    activated = experts * (1.0 - (1.0 - chosen) ** tokens)
    return ExpertLoad(assignments, min(activated, assignments), width)
