"""A run with grammars is repeated without them: its recording tells where they ended answers."""

from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.core_recorder import RecordedCore
from simulator.replay import Replay
from tests.parity.script_worlds import UnevenClock, drive, policies_of, settings_of
from tests.workbench.random_world import World, make_scheduler, worlds
from tests.workbench.scripted_grammar import VOCABULARY, ObedientModel, ScriptedGrammar
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.recording import RecordingWriter, read_recording
from workbench.request import Request
from workbench.sampling_params import SamplingParams

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
FREE = SamplingParams()
HELD = SamplingParams(structured_outputs={"regex": "[a-z]+"}, min_tokens=1)


def record(world: World, seed: int) -> tuple[bytes, list[Request]]:
    """Run a world to its end; its recording and its requests."""
    random = Random(seed)
    scheduler = make_scheduler(world, forget_uncomputed_blocks=True)
    spec = world.scheduler["num_speculative_tokens"]
    model = ObedientModel(random, spec, world.acceptance_rate)
    kind = EngineCore if world.depth == 1 else PipelinedEngineCore
    extra = () if world.depth == 1 else (world.depth,)
    core = RecordedCore(
        kind(scheduler, model, UnevenClock(random), *extra), RecordingWriter(settings_of(world))
    )
    requests = [_request(world, ordinal, random) for ordinal in range(len(world.requests))]
    drive(core, world, requests)
    return core.close(), requests


def _request(world: World, ordinal: int, random: Random) -> Request:
    item = world.requests[ordinal]
    grammar = None
    if ordinal % 3:
        length = (None, 1, 4, 9)[ordinal % 4]
        grammar = ScriptedGrammar(ordinal, length, fails_at=6 if ordinal % 5 == 2 else None)
    return Request(
        str(ordinal),
        item["prompt"],
        item["output"],
        prompt_token_ids=[random.randrange(VOCABULARY) for _ in range(item["prompt"])],
        stop_token_ids=frozenset([7, 11] if ordinal % 4 == 1 else ()),
        sampling_params=FREE if grammar is None else HELD,
        priority=item["priority"],
        client_id=item["client"],
        deadline=item["deadline"],
        grammar=grammar,
    )


@SETTINGS
@given(worlds(), st.integers(0, 1 << 30))
def test_every_step_is_decided_alike(tmp_path: Path, world: World, seed: int) -> None:
    data, requests = record(world, seed)
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(data)
    recording = read_recording(path)
    result = Replay(recording, policies_of(world)).run()
    assert result.difference is None
    assert result.num_recorded == result.num_compared == result.num_equal
    told = [event.request(recording.settings.cache) for event in recording.events if _is_new(event)]
    held = {request.request_id for request in requests if request.grammar is not None}
    assert {request.request_id for request in told if request.grammar is not None} == held
    assert all(r.sampling_params in (FREE, HELD) for r in told)


def _is_new(event: object) -> bool:
    return hasattr(event, "request")
