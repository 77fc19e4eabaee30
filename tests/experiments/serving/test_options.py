"""The command line of a server: flags of both worlds, and what cannot be, by name."""

import shutil
from pathlib import Path

import pytest

from experiments.schema import CONF_DIR
from experiments.serving.core_spec import PlannedCore
from experiments.serving.flag_names import backend_in_flags, in_flags
from experiments.serving.flag_types import whole_number
from experiments.serving.flags import make_parser
from experiments.serving.options import ServeOptions, read_options
from experiments.serving.refused_flags import IGNORED, REFUSED
from workbench.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def options(*argv: str, **environ: str) -> ServeOptions:
    return read_options(argv, environ)


def test_a_folder_is_served_by_the_engine(folder: Path) -> None:
    found = options(str(folder))
    assert found.backend == "engine"
    assert found.overrides == ("backend=engine", "model=hf_config", f"model.path='{folder}'")
    assert found.server["served_model_names"] == (str(folder),)


def test_a_preset_is_simulated_by_its_name() -> None:
    found = options("llama3_8b", "--backend", "simulator", "--speed", "10")
    assert found.is_simulated
    assert found.speed == 10.0
    assert found.overrides == ("backend=simulator", "model=llama3_8b")


def test_flags_are_settings_of_a_run(folder: Path) -> None:
    found = options(
        *("--max-model-len", "8K", str(folder), "--max_num_seqs=16", "cost_model=zero"),
        *("--no-enable-prefix-caching", "--async-scheduling", "--seed", "3", "--block-size", "32"),
        *("--backend", "simulator", "queue=fair_share", "--dtype", "float16", "-tp", "2"),
    )
    assert set(found.overrides[3:]) == {
        "scheduler.max_model_len=8192",
        "scheduler.max_num_seqs=16",
        "scheduler.async_scheduling=true",
        "cache.enable_prefix_caching=false",
        "cache.block_size=32",
        "model.dtype=float16",
        "parallel.tensor_parallel_size=2",
        "seed=3",
        "cost_model=zero",
        "queue=fair_share",
    }


def test_what_is_chosen_by_name_comes_after_flags(folder: Path) -> None:
    found = options(str(folder), "scheduler.max_num_seqs=4", "--max-num-seqs", "8")
    assert found.overrides[-1] == "scheduler.max_num_seqs=4"
    found = options(str(folder), "--scheduling-policy", "priority", "queue=fair_share")
    assert "victim=lowest_priority" in found.overrides
    assert "queue=priority" not in found.overrides


def test_a_model_that_is_chosen_gives_the_sizes(folder: Path) -> None:
    found = options(str(folder), "backend=simulator", "model=llama3_8b")
    assert found.overrides == ("backend=simulator", "model=llama3_8b")
    assert found.model.folder == folder


def test_keys_come_from_flags_and_the_environment(folder: Path) -> None:
    found = options(
        *(str(folder), "--api-key", "a", "--api-key", "b"), WORKBENCH_API_KEY="c", VLLM_API_KEY=""
    )
    assert found.server["api_keys"] == ("a", "b", "c")
    assert options(str(folder)).server["api_keys"] == ()


def test_names_of_the_model_may_stand_before_settings(folder: Path) -> None:
    found = options(str(folder), "--served-model-name", "x", "y", "cost_model=zero")
    assert found.server["served_model_names"] == ("x", "y")
    assert found.overrides[-1] == "cost_model=zero"


def test_flags_that_change_nothing_are_taken(folder: Path) -> None:
    words = [f"--{name}" for name in IGNORED]
    idle = ["--tokenizer-mode", "auto", "--data-parallel-size=1", "--generation-config", "auto"]
    assert options(str(folder), *words, *idle) == options(str(folder))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prot", "1"], "did you mean --port"),
        (["--reasoning-parser", "x"], "--reasoning-parser"),
        (["--quantization", "awq"], "weights are served as the checkpoint has them"),
        (["--data-parallel-size", "2"], "only 1 can be"),
        (["--trust-remote-code"], "never run"),
        (["--generation-config", "vllm"], "only auto can be"),
        (["--speed", "2"], "add --backend simulator"),
        (["--backend", "simulator", "--device", "cpu"], "--device"),
        (["--backend", "simulator", "--speed", "0"], "--speed 0"),
        (["--backend", "simulator", "--speed", "nan"], "--speed nan"),
        (["--backend", "simulator", "--mean-output-tokens", "0.5"], "--mean-output-tokens"),
        (["--backend", "simulator", "backend=engine"], "both named"),
        (["--backend", "gpu"], "--backend"),
        (["--backend", "simulator", "--record-steps", "x.csv"], "--record-steps"),
        (["--backend", "simulator", "--record", "x"], "--record records"),
        (["backend=gpu"], "engine or simulator"),
        (["--max-num-seqs", "many"], "whole number"),
        (["--port"], "--port"),
        (["another"], "one MODEL"),
    ],
)
def test_what_cannot_be_is_refused_by_name(folder: Path, words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(str(folder), *words)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_model_is_an_error_with_an_example() -> None:
    with pytest.raises(ConfigError, match="MODEL is missing"):
        options("--port", "1")


def test_a_tokenizer_alone_says_nothing_of_sizes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        options(str(tmp_path))
    found = options(str(tmp_path), "backend=simulator", "model=llama3_8b")
    assert not found.model.has_config


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("8k", 8000), ("8K", 8192), ("1.5k", 1500)]
)
def test_numbers_may_be_written_short(text: str, value: int) -> None:
    assert whole_number(text) == value


def test_every_flag_is_explained() -> None:
    flags = [a for a in make_parser()._actions if a.option_strings]
    assert len(flags) > 40
    assert all(action.help for action in flags)
    known = {word for action in flags for word in action.option_strings}
    assert not known & {f"--{name}" for name in {*REFUSED, *IGNORED}}


def test_a_preset_is_not_taken_for_a_checkpoint() -> None:
    with pytest.raises(ConfigError, match=r"did you mean --backend simulator\? .* --load-format"):
        options("llama3_8b", "--max-num-seqs", "4")
    for words in (["--load-format", "dummy"], ["backend.load_format=dummy"], ["model=qwen3_0_6b"]):
        assert options("llama3_8b", *words).backend == "engine"


def test_options_of_ones_own_are_found(tmp_path: Path) -> None:
    own = tmp_path / "it's own"
    (own / "queue").mkdir(parents=True)
    shutil.copy(CONF_DIR / "queue" / "fcfs.yaml", own / "queue" / "mine.yaml")
    words = ["llama3_8b", "--backend", "simulator", "queue=mine", "--config-dir"]
    planned = PlannedCore.of(options(*words, str(own)))
    assert planned.config.queue._target_.endswith("FCFSQueue")
    with pytest.raises(ConfigError, match="no such folder"):
        options(*words, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("choice", ["hardware=h100", "cost_model=roofline", "hardware.name=x"])
def test_the_engine_takes_no_machine(choice: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"{choice}: the engine runs on this machine"):
        PlannedCore.of(options(str(folder), choice))


def test_messages_name_flags() -> None:
    error = "backend.device='cuda', but torch sees no GPU: set device='cpu'"
    assert backend_in_flags(error) == "--device cuda, but torch sees no GPU: set --device cpu"
    plain = "backend=engine needs x=1: scheduler.max_num_seqs=0 must be at least 1"
    assert backend_in_flags(plain) == plain
    assert in_flags("port=-1 must be 0") == "--port=-1 must be 0"
