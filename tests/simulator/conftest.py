"""Presets for the tests of the simulated world."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from simulator.hardware import HardwareConfig
from simulator.model_config import ModelConfig, load_model_preset

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="session")
def hardware() -> Callable[[str], HardwareConfig]:
    """A function from a preset's name to the GPU."""

    def load(name: str) -> HardwareConfig:
        fields = yaml.safe_load((CONF / "hardware" / f"{name}.yaml").read_text())
        assert fields.pop("_target_") == "simulator.hardware.HardwareConfig"
        return HardwareConfig(**fields)

    return load


@pytest.fixture(scope="session")
def llama() -> ModelConfig:
    """Llama-3.1-8B."""
    return load_model_preset("llama3_8b")
