"""The table of cosines and sines."""

import pytest
import torch

from engine.layers.rotary import cos_sin_table
from tests.engine.checkpoints import make_config


def test_default_frequencies_are_powers_of_theta() -> None:
    config = make_config("llama", rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    table = cos_sin_table(config, 12)
    assert table.shape == (512, 12)
    assert table.dtype == torch.float32
    angles = torch.arange(512).double()[:, None] * 100.0 ** (-torch.arange(0, 12, 2) / 12).double()
    torch.testing.assert_close(
        table.double(), torch.cat((angles.cos(), angles.sin()), -1), rtol=0, atol=1e-4
    )


def test_linear_scaling_stretches_positions() -> None:
    plain = make_config("llama", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    scaled = make_config("llama", rope_parameters=parameters)
    torch.testing.assert_close(
        cos_sin_table(scaled, 12)[::4], cos_sin_table(plain, 12)[:128], rtol=0, atol=1e-5
    )


def test_dynamic_scaling_is_default_up_to_the_longest_sequence() -> None:
    plain = make_config("llama", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    dynamic = make_config("llama", rope_parameters=parameters)
    torch.testing.assert_close(cos_sin_table(dynamic, 12), cos_sin_table(plain, 12))


def test_the_factor_of_yarn_is_in_the_table() -> None:
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    config = make_config("llama", rope_parameters=parameters)
    config.rope_parameters["original_max_position_embeddings"] = 128
    table = cos_sin_table(config, 12)
    expected = 0.1 * torch.tensor(4.0).log().item() + 1.0
    assert table[0, :6].tolist() == pytest.approx([expected] * 6)
