"""Records random worlds and replays them in the simulator: how many steps are equal.

    python benchmarks/parity/worlds.py SCRIPTED ENGINE > benchmarks/parity/worlds.json

SCRIPTED worlds have a model that is a script, ENGINE worlds tiny models on the CPU; both are drawn
by the generators of tests/parity, which run a few of them each time.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from simulator.cluster import Policies
from simulator.replay import Replay
from tests.parity import engine_worlds, script_worlds
from tests.workbench.random_world import World, worlds
from workbench.recording import read_recording


class Tally:
    """Worlds, steps and what happened in them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(worlds=0, steps=0, steps_equal=0, worlds_unequal=0)
        self._folder = tempfile.TemporaryDirectory()

    def add(self, recording: bytes, policies: Policies) -> None:
        """Replay a recording and count."""
        path = Path(self._folder.name, "recording.jsonl.gz")
        path.write_bytes(recording)
        result = Replay(read_recording(path), policies).run()
        self.counts["worlds"] += 1
        self.counts["steps"] += result.num_recorded
        self.counts["steps_equal"] += result.num_equal
        self.counts["worlds_unequal"] += result.difference is not None
        self.counts.update(result.counters)


def scripted(num_worlds: int) -> Tally:
    """Worlds whose model is a script: every policy, drafts, swaps, windows, failures, aborts."""
    tally = Tally()

    @seed(0)
    @settings(
        max_examples=num_worlds,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds(), st.integers(0, 1 << 30))
    def replay(world: World, number: int) -> None:
        tally.add(script_worlds.record(world, number), script_worlds.policies_of(world))

    replay()
    return tally


def engine(num_worlds: int) -> Tally:
    """Worlds of the real engine with tiny models of several architectures."""
    tally = Tally()
    for number in range(num_worlds):
        world = engine_worlds.EngineWorld.draw(number)
        tally.add(engine_worlds.record(world), world.policies)
    return tally


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]]
    found = {"scripted": scripted(counts[0]), "engine": engine(counts[1])}
    print(json.dumps({name: dict(tally.counts) for name, tally in found.items()}, indent=2))


if __name__ == "__main__":
    main()
