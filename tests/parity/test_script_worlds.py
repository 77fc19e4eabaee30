"""Same decisions in both worlds, over random worlds with all policies; the model is a script."""

from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from simulator.replay import Replay, ReplayResult
from tests.parity.script_worlds import policies_of, record
from tests.workbench.random_world import World, worlds
from workbench.recording import read_recording

SETTINGS = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
    # A world shrinks for minutes; the one that was found says enough.
    phases=[Phase.explicit, Phase.generate],
)


def replay_of(world: World, seed: int, path: Path) -> ReplayResult:
    """Record a world, and replay what lies in the file."""
    path.write_bytes(record(world, seed))
    return Replay(read_recording(path), policies_of(world)).run()


@SETTINGS
@given(worlds(), st.integers(0, 1 << 30))
def test_every_step_is_decided_alike(tmp_path: Path, world: World, seed: int) -> None:
    result = replay_of(world, seed, tmp_path / "recording.jsonl.gz")
    assert result.difference is None
    assert result.num_recorded == result.num_compared == result.num_equal
