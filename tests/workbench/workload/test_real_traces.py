"""The readers on the real traces, and the shipped table against the trace it was made of."""

import json
from pathlib import Path

import numpy as np
import pytest

from workbench.workload import quantile_tables
from workbench.workload.arrivals import PoissonArrivals
from workbench.workload.azure import AzureTrace
from workbench.workload.block_trace import BlockTrace
from workbench.workload.mooncake import MooncakeTrace
from workbench.workload.quantile_tables import load_output_lengths, load_prompt_lengths
from workbench.workload.synthetic import SyntheticWorkload
from workbench.workload.table_trace import CsvTrace

SHIPPED = Path(quantile_tables.__file__).parent / "data" / "azure_conv_2023.json"


@pytest.mark.parametrize(
    ("reader", "name", "num_requests", "span"),
    [
        (AzureTrace, "AzureLLMInferenceTrace_conv.csv", 19_366, 3501.721937),
        (AzureTrace, "AzureLLMInferenceTrace_code.csv", 8_819, 3435.948056),
        (MooncakeTrace, "mooncake_conversation_trace.jsonl", 12_031, 3536.999),
        (MooncakeTrace, "mooncake_synthetic_trace.jsonl", 3_993, 1022.025),
        (CsvTrace, "common_2048.csv", 2_048, 305.366),
    ],
)
def test_every_row_is_read(shared_dir, reader, name, num_requests, span):
    workload = reader(name, traces_dir=str(shared_dir / "traces"))
    requests = list(workload.initial())
    assert workload.num_requests == len(requests) == num_requests
    assert requests[-1].arrival_time == pytest.approx(span, abs=1e-3)
    assert min(r.num_prompt_tokens for r in requests) >= 1


def test_mooncake_shares_prefixes(shared_dir):
    columns = MooncakeTrace(str(shared_dir / "traces/mooncake_conversation_trace.jsonl")).columns
    ids = [block for row in columns.hash_ids for block in row]
    assert 0.3 < 1 - len(set(ids)) / len(ids) < 0.5


def test_the_measured_conversations_have_ids_of_whole_blocks(shared_dir):
    path = shared_dir / "measured" / "sharegpt-llama-3.1-8b-300-sps10.jsonl"
    requests = list(BlockTrace(str(path)).initial())
    assert len(requests) == 300
    for r in requests:
        assert len(r.hash_ids) == r.num_prompt_tokens // 16
        total = r.num_prompt_tokens + r.num_output_tokens
        assert len(r.hash_ids + r.output_hash_ids) == total // 16


def test_the_shipped_table_can_be_computed_again(shared_dir, tmp_path):
    trace = shared_dir / "traces" / "AzureLLMInferenceTrace_conv.csv"
    date = json.loads(SHIPPED.read_text())["computed"]
    quantile_tables.main([str(trace), "--date", date, "--out", str(tmp_path / "table.json")])
    assert (tmp_path / "table.json").read_text() == SHIPPED.read_text()


def test_the_default_workload_is_like_the_trace():
    facts = json.loads(SHIPPED.read_text())
    workload = SyntheticWorkload(
        arrivals=PoissonArrivals(facts["rate_per_s"]),
        prompt_lengths=load_prompt_lengths(),
        output_lengths=load_output_lengths(),
        num_requests=40_000,
        seed=0,
    )
    requests = list(workload.initial())
    prompts = np.array([r.num_prompt_tokens for r in requests])
    outputs = np.array([r.num_output_tokens for r in requests])
    assert prompts.mean() == pytest.approx(facts["mean_prompt_tokens"], rel=0.02)
    assert outputs.mean() == pytest.approx(facts["mean_output_tokens"], rel=0.02)
    assert np.corrcoef(prompts, outputs)[0, 1] == pytest.approx(facts["correlation"], abs=0.02)
    rate = len(requests) / requests[-1].arrival_time
    assert rate == pytest.approx(facts["rate_per_s"], rel=0.03)
