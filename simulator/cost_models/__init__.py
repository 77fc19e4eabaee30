"""What a step costs: each model is one class and one yaml, behind `CostModel.step_time(shape)`."""

from simulator.cost_models.base import CostModel

__all__ = ["CostModel"]
