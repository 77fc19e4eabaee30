"""Random worlds on the real engine: a tiny model on the CPU, driven and recorded step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from engine.build import EngineParts
from engine.build import Policies as EnginePolicies
from engine.core_recorder import RecordedCore, recorded_settings
from simulator.cluster import Policies
from tests.engine.checkpoints import ARCHITECTURES, SIZES
from tests.engine.harness import make_engine, make_request
from tests.workbench.random_world import BATCH_POLICIES, EVICTIONS, QUEUES, VICTIMS
from workbench.recording import RecordingWriter
from workbench.request import Request
from workbench.sampling_params import SamplingParams

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    # every layer slides
    "mistral": {"model_type": "mistral"},
    # the upper layer slides: two KV-cache groups
    "hybrid": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 24,
        "max_window_layers": 1,
    },
    "qwen3_moe": {"model_type": "qwen3_moe", "num_hidden_layers": 2},
}
MODES = ("plain", "async", "drafts", "async drafts", "swap")
LENGTH = 160
VOCABULARY = SIZES["vocab_size"]


@dataclass(frozen=True)
class EngineWorld:
    """Settings and policies of an engine, and the seed of all that happens to it."""

    seed: int
    model: str
    settings: dict[str, Any]
    policies: Policies

    @classmethod
    def draw(cls, seed: int) -> "EngineWorld":
        """The world of a seed; five worlds in a row have all the modes."""
        random = Random(seed)
        mode = MODES[seed % len(MODES)]
        # KV that slides out of a window cannot be swapped back
        model = random.choice(("llama", "qwen3_moe") if mode == "swap" else sorted(MODELS))
        batch_policy = random.choice(sorted(BATCH_POLICIES))
        chunked = batch_policy == "sarathi" or random.random() < 0.7
        whole = BATCH_POLICIES[batch_policy]().whole_prompts or not chunked
        return cls(
            seed,
            model,
            {
                "max_model_len": LENGTH,
                "max_num_seqs": random.randint(1, 8),
                "max_num_batched_tokens": random.randint(LENGTH if whole else 24, LENGTH + 60),
                "enable_chunked_prefill": chunked,
                "long_prefill_token_threshold": random.choice((0, 0, 20)) if chunked else 0,
                "scheduler_reserve_full_isl": random.random() < 0.5,
                "async_scheduling": "async" in mode,
                "num_speculative_tokens": 3 if "drafts" in mode else 0,
                "preemption_mode": "swap" if mode == "swap" else "recompute",
                "swap_space_gib": 0.0005,
                "enable_prefix_caching": random.random() < 0.8,
                # one request fits, eight do not
                "num_gpu_blocks_override": random.randint(11, 20) + 11 * (model == "hybrid"),
            },
            Policies(
                queue=QUEUES[random.choice(sorted(QUEUES))],
                batch_policy=BATCH_POLICIES[batch_policy],
                victim_policy=VICTIMS[random.choice(sorted(VICTIMS))],
                eviction=EVICTIONS[random.choice(sorted(EVICTIONS))],
            ),
        )


def record(world: EngineWorld) -> bytes:
    """Serve a world's requests to the last one; the recording."""
    engine = make_engine(
        {
            **SIZES,
            **ARCHITECTURES[MODELS[world.model]["model_type"]],
            **SMALL,
            **MODELS[world.model],
        },
        EnginePolicies(**{name: _made(getattr(world.policies, name)) for name in POLICY_NAMES}),
        load_format="dummy",
        dtype="float32",
        **world.settings,
    )
    random = Random(world.seed)
    core = RecordedCore(engine.core, RecordingWriter(recorded_settings(engine)))
    try:
        _drive(core, _requests(engine, random), random)
    finally:
        engine.executor.shutdown()
    core.scheduler.check_integrity()
    return core.close()


POLICY_NAMES = ("queue", "batch_policy", "victim_policy", "eviction")


def _made(make: Callable[[], Any] | None) -> Any:
    return None if make is None else make()


def _drive(core: RecordedCore, coming: list[Request], random: Random) -> None:
    """Let requests come by ones and twos, and some be aborted, until all have ended."""
    alive: list[str] = []
    while coming or core.has_work:
        while coming and (not core.has_work or random.random() < 0.25):
            request = coming.pop()
            request.arrival_time = core.clock()
            request.deadline = request.arrival_time + random.random() if alive else None
            core.add_request(request)
            alive.append(request.request_id)
        if random.random() < 0.03:
            core.abort_requests(random.sample(alive, 1))
        if core.has_work:
            step = core.step()
            try:
                step.send(next(step).result())
            except StopIteration:
                continue


def _requests(engine: EngineParts, random: Random) -> list[Request]:
    """Requests of which most begin alike, and in which words come back (n-grams find them)."""
    words = [[random.randrange(VOCABULARY) for _ in range(8)] for _ in range(3)]
    requests = []
    for number in range(random.randint(6, 12)):
        prompt = words[0] * random.randint(0, 5)
        while len(prompt) < random.randint(1, 100):
            prompt = prompt + random.choice(words)[: random.randint(1, 8)]
        params = SamplingParams(
            temperature=random.choice((0.0, 1.0)),
            max_tokens=random.randint(1, 60),
            seed=random.choice((None, number)),
            stop_token_ids=random.sample(range(VOCABULARY), 5) if number % 3 == 0 else (),
        )
        requests.append(
            make_request(
                engine,
                f"r{number}",
                prompt,
                params,
                priority=random.randint(0, 2),
                client_id=random.choice("abc"),
            )
        )
    return requests
