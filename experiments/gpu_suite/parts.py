"""The parts of the GPU suite: a name, a command, a time limit.

Each part is a process of its own, so that one that crashes or hangs takes no other with it, and
so that this package needs no torch. A part appends its results as it goes and passes over those
that are there.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PART_LIMIT_S = 480
KERNELS = "kernels.jsonl"
DEVICE = "device.json"
STEP_TIMES = "step_times.jsonl"
THROUGHPUT = "throughput.jsonl"
STEP_TABLE = "step_table.csv"
FAMILIES = ("attention", "kv_cache", "sampling", "moe")
MODELS = ("qwen3_0_6b", "llama3_8b")
MODEL_PRESETS = Path(__file__).resolve().parents[2] / "simulator" / "model_presets"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the suite.

    Attributes:
        name: As `--only` takes it.
        command: What runs, without the Python that runs it.
        limit_s: Killed after this many seconds; it goes on where it stopped at the next call.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float = PART_LIMIT_S


def parts(out: Path, is_dry_run: bool) -> list[Part]:
    """All parts, in the order in which they run: what others depend on first."""
    dry = ("--dry-run",) if is_dry_run else ()

    def part(name: str, module: str, file: str, *arguments: str) -> Part:
        launch = (sys.executable, "-m", "experiments.gpu_suite.launch", module)
        command = (*launch, "--out", str(out / file), *arguments, *dry)
        return Part(name, command)

    return [
        part("device", "kernels.device_report", DEVICE),
        part("kernel_check", "kernels.bench", KERNELS, "--check"),
        *(
            part(f"kernel_time_{family}", "kernels.bench", KERNELS, "--time", "--family", family)
            for family in FAMILIES
        ),
        part("engine_step", "engine.benchmarks.step_time", STEP_TIMES, *_model("llama3_8b")),
        *(
            part(f"throughput_{model}", "engine.benchmarks.throughput", THROUGHPUT, *_model(model))
            for model in MODELS
        ),
        *(
            part(
                f"throughput_transformers_{model}",
                "engine.benchmarks.throughput",
                THROUGHPUT,
                *_model(model),
                "--who",
                "transformers",
            )
            for model in MODELS
        ),
        part("step_table", "engine.benchmarks.step_table", STEP_TABLE, *_model("llama3_8b")),
    ]


def _model(name: str) -> Sequence[str]:
    return ("--model", str(MODEL_PRESETS / name))


def select(all_parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts whose name is, or begins with, one of `names`; all where none is given.

    Raises:
        ValueError: A name fits no part.
    """
    for name in names:
        if not any(part.name.startswith(name) for part in all_parts):
            known = ", ".join(part.name for part in all_parts)
            raise ValueError(f"--only {name}: no such part; choose among {known}")
    return [p for p in all_parts if not names or any(p.name.startswith(name) for name in names)]
