"""The drafter's share of a step with speculative decoding.

Knows how often the drafter runs, and what share of the target model a run costs. It does not know
which drafts are accepted: the token source does.
"""

from simulator.cost_models.base import CostModel
from workbench.step_profile import StepShape


class DraftingCostModel(CostModel):
    """A step of the target model, and then one run of the drafter for every draft token.

    A run of the drafter gives every row of the batch one token. It costs a share of what the target
    model would take for that: the cost coefficient c of Leviathan et al. (ICML 2023).

    Args:
        target: Prices steps of the target model.
        num_drafts: Draft tokens a row.
        draft_cost: Share of the target's time, at least 0.
    """

    def __init__(self, target: CostModel, num_drafts: int, draft_cost: float) -> None:
        self._target = target
        self._factor = num_drafts * draft_cost
        self.is_bounded = target.is_bounded
        self.is_repeatable = target.is_repeatable
        self.wants_time = target.wants_time
        self.wants_longest_decode = target.wants_longest_decode

    def tell_time(self, now: float) -> None:
        self._target.tell_time(now)

    def step_time(self, shape: StepShape) -> float:
        drafts = 0.0
        if shape.num_samples:
            drafts = self._factor * self._target.step_time(_one_token_a_row(shape))
        # last, for whoever asks for the host's share of it
        return drafts + self._target.step_time(shape)

    def host_time(self, shape: StepShape) -> float:
        return self._target.host_time(shape)

    def is_extrapolated(self, shape: StepShape) -> bool:
        return self._target.is_extrapolated(shape)


def _one_token_a_row(shape: StepShape) -> StepShape:
    rows = shape.num_requests
    context = shape.decode_context + sum(query + cached for query, cached in shape.prefills)
    return StepShape(rows, context, [], rows, shared_context=shape.shared_context)
