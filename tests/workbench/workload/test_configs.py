"""Every yaml of conf/workload composes, builds its workload, and tells where a trace is missing."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from workbench.errors import WorkloadError

CONF = Path(__file__).parents[3] / "conf"
NAMES = sorted(path.stem for path in (CONF / "workload").glob("*.yaml"))
TRACES = [
    "azure_code",
    "azure_conv",
    "burstgpt",
    "csv",
    "jsonl",
    "mooncake_conversation",
    "mooncake_synthetic",
    "sharegpt",
    "sharegpt_blocks",
]
SYNTHETIC = [name for name in NAMES if name not in TRACES]


def workload_of(name, traces_dir=None, **changes):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"workload/{name}")
    root = OmegaConf.create({"seed": 3, "traces_dir": traces_dir, "workload": config.workload})
    for key, value in changes.items():
        OmegaConf.update(root.workload, key, value)
    return instantiate(root.workload)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_workloads_are_built(name):
    workload = workload_of(name, num_requests=64)
    assert workload.num_requests == 64
    first = next(iter(workload.initial()))
    assert first.num_prompt_tokens >= 1


def test_the_default_is_like_the_azure_trace():
    default, azure_like = workload_of("default"), workload_of("azure_like")
    assert list(default.initial()) == list(azure_like.initial())
    assert default.num_requests == 2048


@pytest.mark.parametrize(
    "name", ["azure_code", "azure_conv", "mooncake_conversation", "mooncake_synthetic"]
)
def test_a_missing_trace_says_how_to_fetch_it(name, tmp_path):
    for traces_dir in (None, str(tmp_path)):
        with pytest.raises(InstantiationException) as error:
            workload_of(name, traces_dir)
        assert isinstance(error.value.__cause__, WorkloadError)
        assert "python -m experiments.fetch_traces --out DIR" in str(error.value.__cause__)


@pytest.mark.parametrize(
    "name", ["azure_code", "azure_conv", "mooncake_conversation", "mooncake_synthetic"]
)
def test_real_traces_are_built(name, shared_dir):
    assert workload_of(name, str(shared_dir / "traces"), max_requests=10).num_requests == 10


def test_measured_conversations_are_built(shared_dir):
    assert workload_of("sharegpt_blocks", str(shared_dir / "measured")).num_requests == 300


def test_files_of_the_user_are_built(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    assert workload_of("csv", path=str(table)).num_requests == 1
    lines = tmp_path / "mine.jsonl"
    lines.write_text('{"arrived_at": 0, "num_prefill_tokens": 1, "num_decode_tokens": 1}')
    assert workload_of("jsonl", path=str(lines)).num_requests == 1
    (tmp_path / "BurstGPT_1.csv").write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n1,G,2,3,5,API log\n"
    )
    assert workload_of("burstgpt", str(tmp_path)).num_requests == 1
    (tmp_path / "ShareGPT_V3_unfiltered_cleaned_split.json").write_text(
        '[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]'
    )
    assert workload_of("sharegpt", str(tmp_path)).num_requests == 1
