"""`bench throughput` and `bench latency`."""

import json

import pytest

from experiments.bench import latency, throughput
from experiments.bench.__main__ import main
from experiments.bench.offline import Served
from tests.without_torch import run_without_torch
from workbench.workload.base import WorkloadRequest

SMALL = ("qwen3_0_6b", "--backend", "simulator", "hardware=h100")


class FakeWorld:
    """Answers in full; its n-th batch takes n seconds."""

    def __init__(self):
        self.batches = []

    def serve(self, items):
        self.batches.append(list(items))
        return Served(float(len(self.batches)), sum(item.num_output_tokens for item in items))

    def close(self):
        """Nothing is held."""


def test_throughput_counts_the_requests_after_the_warm_up():
    world = FakeWorld()
    items = [WorkloadRequest(str(i), 0.0, 10, 20) for i in range(6)]
    told = throughput.measure(world, items)
    assert [len(batch) for batch in world.batches] == [4, 6]
    assert max(item.num_output_tokens for item in world.batches[0]) == 8
    assert told["elapsed_time"] == 2.0
    assert told["requests_per_second"] == 3.0
    assert told["output_tokens_per_second"] == 60.0
    assert told["tokens_per_second"] == 90.0


def test_latency_counts_the_iterations_after_the_warm_up():
    world = FakeWorld()
    seconds = latency.measure(world, (3, 16, 4), num_warmups=2, num_iterations=4)
    assert seconds == [3.0, 4.0, 5.0, 6.0]
    told = latency.statistics(seconds)
    assert told["avg_latency"] == 4.5
    assert told["percentiles"]["50"] == 4.5
    names = [item.request_id for batch in world.batches for item in batch]
    assert len(set(names)) == 18


def test_simulated_throughput(tmp_path, capsys):
    file = tmp_path / "t.json"
    words = ("--num-prompts", "20", "--random-prefix-len", "32", "--output-json", str(file))
    assert main(["throughput", *SMALL, *words]) == 0
    told = json.loads(file.read_text())
    assert told["total_input_tokens"] == 20 * (256 + 32)
    assert told["total_output_tokens"] == 20 * 64
    assert "simulated engine" in capsys.readouterr().out


def test_simulated_latency_grows_with_the_batch(tmp_path):
    found = []
    for size in ("1", "64"):
        file = tmp_path / f"{size}.json"
        words = ("--batch-size", size, "--output-json", str(file))
        assert main(["latency", *SMALL, *words]) == 0
        found.append(json.loads(file.read_text())["avg_latency"])
    assert 0 < found[0] < found[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("throughput", *SMALL, "--num-prompts", "0"), "--num-prompts 0"),
        (("throughput", *SMALL, "workload=multi_turn"), "open loop"),
        (("throughput", *SMALL, "--max-model-len", "100"), "max-model-len"),
        (("latency", *SMALL, "--batch-size", "0"), "--batch-size 0"),
        (("latency", *SMALL, "other_model"), "one model only"),
        (("latency", "no_such_model"), "no_such_model"),
    ],
)
def test_wrong_words(words, text, capsys):
    assert main(list(words)) != 0
    assert text in capsys.readouterr().err


def test_the_real_engine(tmp_path, capsys):
    pytest.importorskip("torch")
    from engine.demo_checkpoint import write_demo_checkpoint

    folder = str(write_demo_checkpoint(tmp_path / "model"))
    limits = ("--max-num-seqs", "4", "--max-num-batched-tokens", "32", "--max-model-len", "64")
    words = (folder, *limits, "--dtype", "float32", "--num-gpu-blocks-override", "64")
    lengths = ("--input-len", "6", "--output-len", "3")
    assert main(["throughput", *words, *lengths, "--num-prompts", "3"]) == 0
    assert "on the engine" in capsys.readouterr().out
    iterations = ("--num-iters", "2", "--num-iters-warmup", "1", "--batch-size", "2")
    assert main(["latency", *words, *lengths, *iterations]) == 0
    assert "2 iterations" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["latency", "throughput"])
def test_without_torch_one_line_says_what_to_install(command):
    done = run_without_torch(
        f"from experiments.bench.{command} import main; sys.exit(main(['qwen3_0_6b']))"
    )
    assert done.returncode == 2
    assert "needs torch, which is not installed: pip install -e '.[engine]'" in done.stderr
    assert done.stderr.count("\n") == 1
