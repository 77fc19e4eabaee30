"""In which world a run takes place: simulated, or on the real engine.

A backend turns a composed config into something that runs; what comes out of either is the same
`RunResult`, so everything after it (files, charts, comparisons) is shared. The engine's parts are
imported when a run asks for them: the simulator needs no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from simulator.cluster import ClusterConfig
from workbench.config import SchedulerConfig
from workbench.metrics import SLO, RunResult

Progress = Callable[[int, int, float], None]


class Run(Protocol):
    """A run, to be run once."""

    def run(self, progress: Progress | None = None) -> RunResult:
        """Run until every request has ended."""
        ...


class Assembled(Protocol):
    """A config, checked, and what it is made of.

    `notes` tells, a line each, what was decided for the user and is not to be seen in the config.
    `activity` is what a run does, "simulation" or "serving": the summary's costs are named after
    it. `facts` is what the provenance must say of the world beside machine and packages.
    """

    @property
    def cluster(self) -> ClusterConfig: ...
    @property
    def scheduler(self) -> SchedulerConfig: ...
    @property
    def slo(self) -> SLO: ...
    @property
    def num_kv_blocks(self) -> int: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def activity(self) -> str: ...
    @property
    def facts(self) -> dict[str, Any]: ...

    def start(self) -> Run:
        """A fresh run: its workload is read or drawn, its policies are new objects."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A world to run in."""

    def assemble(self, config: DictConfig) -> Assembled:
        """Build and check all parts. Raises WorkbenchError subclasses."""
        ...


class SimulatorBackend:
    """Simulated time, with step times from a cost model."""

    def assemble(self, config: DictConfig) -> Assembled:
        from experiments.assemble import Assembly

        return Assembly.from_config(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBackend:
    """The real engine, on this machine and in real time.

    Attributes:
        device: "auto", "cpu" or "cuda".
        dtype: "auto" (the checkpoint's), "float32", "float16" or "bfloat16".
        load_format: "auto": the weights beside the model's config.json, or random ones where there
            are none; "safetensors"; "dummy".
        attention_backend: "auto", "triton", "torch" or "reference".
        enforce_eager: Capture no CUDA graphs.
        kv_cache_dtype: "auto" or "fp8".
        kv_cache_memory_bytes: Of the KV cache; None: measured on a GPU, modest on a CPU.
        record: Leave a recording in the run folder, with which `experiments.parity` repeats the
            run in the simulator.
    """

    device: str = "auto"
    dtype: str = "auto"
    load_format: str = "auto"
    attention_backend: str = "auto"
    enforce_eager: bool = False
    kv_cache_dtype: str = "auto"
    kv_cache_memory_bytes: int | None = None
    record: bool = False

    def assemble(self, config: DictConfig) -> Assembled:
        from experiments.assemble_engine import EngineAssembly

        return EngineAssembly.from_config(config, self)


def settings_of(backend: EngineBackend) -> dict[str, Any]:
    """The backend's settings of the engine itself, by name."""
    names = [name for name in EngineBackend.__dataclass_fields__ if name != "record"]
    return {name: getattr(backend, name) for name in names}
