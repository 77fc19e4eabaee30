"""Length tables: what they keep, and what is wrong with one."""

import json

import numpy as np
import pytest

from workbench.errors import WorkloadError
from workbench.workload.lengths import ConditionalQuantileLengths, QuantileLengths
from workbench.workload.quantile_tables import (
    compute_table,
    load_output_lengths,
    load_prompt_lengths,
    to_json,
)


def test_a_table_keeps_the_dependence_of_outputs_on_prompts(tmp_path):
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, 1000, 5000)
    outputs = 2 * prompts + rng.integers(1, 50, 5000)
    path = tmp_path / "table.json"
    path.write_text(to_json(compute_table(prompts, outputs)))
    drawn_prompts = load_prompt_lengths(str(path)).sample(5000, rng)
    drawn_outputs = load_output_lengths(str(path)).sample(5000, rng, drawn_prompts)
    assert np.corrcoef(drawn_prompts, drawn_outputs)[0, 1] > 0.98
    assert drawn_outputs.mean() == pytest.approx(outputs.mean(), rel=0.05)


@pytest.mark.parametrize("prompts", [[5], [5, 5, 5], [1, 1, 1, 1, 9], list(range(1, 40))])
def test_few_or_equal_prompts_make_a_table_too(prompts):
    table = compute_table(np.array(prompts), np.array(prompts) + 1)
    lengths = QuantileLengths(**table["prompt_tokens"])
    outputs = ConditionalQuantileLengths(**table["output_tokens"])
    rng = np.random.default_rng(0)
    drawn = outputs.sample(50, rng, lengths.sample(50, rng))
    assert drawn.min() >= min(prompts) + 1
    assert drawn.max() <= max(prompts) + 1


def test_the_text_is_json(tmp_path):
    table = {"a": 1, "b": {"c": [1, 2], "d": [[1], [2]]}, "e": []}
    assert json.loads(to_json(table)) == table


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(WorkloadError, match="no length table 'nosuch'; the shipped ones are azure"):
        load_prompt_lengths("nosuch")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(WorkloadError, match=r"bad.json cannot be read"):
        load_output_lengths(str(bad))
    bad.write_text("{}")
    with pytest.raises(WorkloadError, match="lacks prompt_tokens or output_tokens"):
        load_output_lengths(str(bad))
