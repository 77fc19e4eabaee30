"""Which files a config names, what of them is read, and when they count as changed."""

from pathlib import Path

import pytest

from experiments import inputs
from experiments.inputs import changes, inputs_of, missing, with_absolute_paths
from workbench.errors import ConfigError

SERVES = {"_target_": "experiments.backend.EngineBackend"}


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def read(config: dict, folder: Path) -> dict[str, bool]:
    """Name of each file below the folder to whether its content was read."""
    found = inputs_of(config)
    return {str(Path(i["path"]).relative_to(folder)): i["sha256"] is not None for i in found}


def test_paths_that_exist_become_absolute(tmp_path, monkeypatch):
    make(tmp_path, "trace.csv", "tables/azure_conv_2023", "reduce.csv")
    monkeypatch.chdir(tmp_path)
    config = {
        "traces_dir": "traces",
        "workload": {"path": "trace.csv", "lengths": [{"table": "azure_conv_2023"}]},
        "cost_model": {"model_path": "Qwen/Qwen3-8B", "all_reduce": {"path": "reduce.csv"}},
        "model": {"name": "tables"},
    }
    assert with_absolute_paths(config) == {
        "traces_dir": str(tmp_path / "traces"),
        "workload": {
            "path": str(tmp_path / "trace.csv"),
            "lengths": [{"table": "azure_conv_2023"}],
        },
        "cost_model": {
            "model_path": "Qwen/Qwen3-8B",
            "all_reduce": {"path": str(tmp_path / "reduce.csv")},
        },
        "model": {"name": "tables"},
    }


def test_a_trace_lies_in_its_folder(tmp_path, monkeypatch):
    make(tmp_path, "traces/a.csv", "traces/b.csv")
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths({"workload": {"path": "a.csv", "traces_dir": "traces"}})
    assert config["workload"]["path"] == "a.csv"
    monkeypatch.chdir("/")
    assert read(config, tmp_path) == {"traces/a.csv": True}


def test_of_a_profile_its_tables_for_this_number_of_gpus(tmp_path):
    make(tmp_path, "meta.yaml", "p/tp1/dense.csv", "p/tp2/dense.csv", "p/tp2/notes.txt")
    config = {"cost_model": {"path": str(tmp_path / "p")}, "parallel": {"tensor_parallel_size": 2}}
    assert read(config, tmp_path) == {"meta.yaml": True, "p/tp2/dense.csv": True}


@pytest.mark.parametrize("path", ["m", "m/config.json"])
def test_weights_are_listed_and_not_read(tmp_path, path):
    make(tmp_path, "m/config.json", "m/model.safetensors", "m/tokenizer.json")
    config = {"model": {"path": str(tmp_path / path)}}
    assert read(config, tmp_path) == {"m/config.json": True}
    expected = {"m/config.json": True, "m/model.safetensors": False}
    assert read(config | {"backend": SERVES}, tmp_path) == expected


def test_a_folder_that_is_no_profile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_FILES", 3)
    make(tmp_path, *(f"{i}.csv" for i in range(4)))
    with pytest.raises(ConfigError, match=r"cost_model\.path=.* holds more than 3 files"):
        inputs_of({"cost_model": {"path": str(tmp_path)}})


def test_what_has_changed_is_told(tmp_path):
    make(tmp_path, "p/a.csv", "p/b.csv", "p/c.csv")
    config = {"cost_model": {"path": str(tmp_path / "p")}}
    before = inputs_of(config)
    assert changes(before, inputs_of(config)) == []
    (tmp_path / "p/a.csv").write_text("A.csv")  # of the same length
    (tmp_path / "p/b.csv").unlink()
    make(tmp_path, "p/d.csv")
    changed, gone, new = changes(before, inputs_of(config))
    assert "a.csv has changed (sha256 " in changed
    assert "b.csv is not there" in gone
    assert "d.csv is new" in new
    assert missing(before, inputs_of(config))


def test_files_that_moved_have_not_changed(tmp_path):
    make(tmp_path / "here", "p/a.csv")
    before = inputs_of({"cost_model": {"path": str(tmp_path / "here/p")}})
    (tmp_path / "here").rename(tmp_path / "there")
    now = inputs_of({"cost_model": {"path": str(tmp_path / "there/p")}})
    assert changes(before, now) == []
