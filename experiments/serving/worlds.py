"""The two worlds that a server can have behind it, each made in the core's process.

Both take the same settings, plain values: `config` (a composed config), `model` (its name),
`tokenizer` and `eos_token_ids` (see `grammars`); the engine takes `record_steps` (a file, or None)
and `record` (a folder, or None), the simulator `vocabulary` (fields of Vocabulary), `speed` and
`mean_output_tokens`. A world is imported when it is made.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.served_core import ServedCore


def simulated_core(settings: Mapping[str, Any]) -> "ServedCore":
    """The simulator in scaled real time. Raises WorkbenchError subclasses."""
    from experiments.serving.simulated import make_core

    return make_core(settings)


def engine_core(settings: Mapping[str, Any]) -> "ServedCore":
    """The real engine on this machine. Raises WorkbenchError subclasses."""
    from experiments.assemble import part
    from experiments.assemble_engine import EngineAssembly
    from experiments.serving.core_settings import from_plain

    config = from_plain(settings["config"])
    assembly = EngineAssembly.from_config(config, part(config, "backend"))
    return _served(assembly, settings)


def _served(assembly: Any, settings: Mapping[str, Any]) -> "ServedCore":
    from engine.served_core import ServedCore, core_info
    from engine.warm_up import warm_up
    from experiments.serving.grammars import grammar_compiler

    parts = assembly.parts
    warm_up(parts)
    vocab_size = parts.model.vocab_size
    info = core_info(
        parts.core,
        world="engine",
        vocab_size=vocab_size,
        model=settings["model"],
        facts={**assembly.facts["engine"], "notes": assembly.notes},
    )
    served = ServedCore(
        core=parts.core,
        info=info,
        cache_config=parts.cache_config,
        to_wall=parts.core.clock.to_wall,
        from_wall=parts.core.clock.from_wall,
        grammars=grammar_compiler(settings, vocab_size),
        shutdown=_ending(parts, settings.get("record_steps")),
    )
    folder = settings.get("record")
    if folder is None:
        return served
    from experiments.serving.recorded import recorded

    return recorded(served, assembly.new_recording, Path(folder))


def _ending(parts: Any, record_steps: str | None) -> Callable[[], None]:
    """What ends the engine; with a file, its steps are timed from now on and written there."""
    end: Callable[[], None] = parts.executor.shutdown
    if record_steps is None:
        return end
    from engine.benchmarks.served_steps import StepTimer
    from workbench.step_profile import write_steps

    file = Path(record_steps)
    # named as calibrations name the recordings in their folder
    source = f"run/{file.stem.removeprefix('run_')}"
    timer = StepTimer(parts.executor, source, parts.scheduler_config.async_scheduling)
    parts.core.executor = timer

    def write_and_end() -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_steps(file, timer.steps.busy)
        end()

    return write_and_end
