"""Which cost model prices the steps of a measured server, and what went into it.

Knows where profiles and kernel tables lie. It does not know what a step costs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.measured.settings import (
    NO_PROFILE,
    SYNCHRONOUS_HOST_ROW_S,
    SYNCHRONOUS_HOST_S,
)
from experiments.measured.system import System
from simulator.cost_models.base import CostModel
from simulator.cost_models.kernel_tables import KernelTableCostModel
from simulator.cost_models.layerwise import LayerwiseCostModel
from simulator.cost_models.roofline import RooflineCostModel
from simulator.cost_models.silicon import SYSTEMS
from workbench.errors import ConfigError

KERNELS, FRAMEWORK, COMM = "kernels", "vllm", "custom_allreduce_perf.parquet"


@dataclass(frozen=True, slots=True)
class Prices:
    """A cost model and where its numbers come from.

    Attributes:
        source: "layer-wise profile", "kernel tables" or "formulas".
        uneven_rows: Whether decode rows of unequal length are priced apart.
        files: What was read, by use.
    """

    cost_model: CostModel
    source: str
    uneven_rows: bool
    files: dict[str, str]


def prices_of(system: System, profile: str, profiles_dir: Path, launch_gap_s: float) -> Prices:
    """The cost model of a server.

    Args:
        profile: Folder of a layer-wise profile, or "none".
        profiles_dir: Where kernels/<system> lies.

    Raises:
        ConfigError: The profile is missing, or of another model or GPU.
    """
    tables = profiles_dir / KERNELS / SYSTEMS.get(system.hardware.name, system.hardware.name)
    ranks = system.parallel.expert_group_size
    comm = all_reduce_table(tables, system.version) if ranks > 1 else None
    files = {} if comm is None else {"all_reduce": str(comm)}
    settings: dict[str, Any] = {
        "model": system.model,
        "hardware": system.hardware,
        "parallel": system.parallel,
        "all_reduce": None if comm is None else str(comm),
        "block_size": system.cache.block_size,
        "captured_sizes": system.graph_sizes,
        "captured_len": system.scheduler.max_model_len if system.graph_sizes else None,
        "launch_gap_s": launch_gap_s,
    }
    if not system.scheduler.async_scheduling:
        settings["host_overhead_s"] = SYNCHRONOUS_HOST_S
        settings["host_overhead_per_request_s"] = SYNCHRONOUS_HOST_ROW_S
    if profile != NO_PROFILE:
        uneven = has_skew_sweep(Path(profile))
        model: CostModel = LayerwiseCostModel(**settings, path=profile, uneven_rows=uneven)
        return Prices(model, "layer-wise profile", uneven, {"profile": profile} | files)
    if tables.is_dir():
        model = KernelTableCostModel(**settings, path=str(tables), uneven_rows=True)
        return Prices(model, "kernel tables", True, {"kernel_tables": str(tables)} | files)
    model = RooflineCostModel(**settings, uneven_rows=True)
    return Prices(model, "formulas", True, files)


def has_skew_sweep(profile: Path) -> bool:
    """Whether the profile's attention was also measured with rows of unequal length.

    Its meta.yaml says so; one that says nothing was not.
    """
    for file in (profile / "meta.yaml", profile.parent / "meta.yaml"):
        if file.is_file():
            try:
                meta = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                raise ConfigError(f"profile file {file} cannot be read as YAML") from None
            sweep = (meta or {}).get("skew_profile") if isinstance(meta, dict) else None
            return bool(isinstance(sweep, dict) and sweep.get("enabled"))
    return False


def all_reduce_table(tables: Path, version: str) -> Path | None:
    """The all-reduce table of the newest version up to `version`, else of the oldest; or None."""
    files = {_number(f.parent.name): f for f in (tables / "comm" / FRAMEWORK).glob(f"*/{COMM}")}
    if not files:
        return None
    fitting = [known for known in files if known <= _number(version)]
    return files[max(fitting) if fitting else min(files)]


def gpu_of(system: str) -> str:
    """The option of conf/hardware for a name of kernel tables, e.g. h100_sxm.

    Raises:
        ConfigError: There is none.
    """
    options = {theirs: ours for ours, theirs in SYSTEMS.items()}
    if system in options:
        return options[system]
    raise ConfigError(f"the system {system!r} is not known: it is one of {', '.join(options)}")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
