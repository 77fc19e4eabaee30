"""Step times that were measured, as a model: see `fit` and `Calibration`."""

from simulator.calibration.calibration import Calibration
from simulator.calibration.fit import fit

__all__ = ["Calibration", "fit"]
