"""Where a result comes from, as a page tells it: its commands and its facts.

Knows `provenance.json` and the files that Hydra leaves. A path of the machine's own never gets into
a command: a module is called by its name.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.run_folder import PROVENANCE

MULTIRUN = "multirun.yaml"


def read_provenance(folder: Path) -> dict[str, Any]:
    """What a folder says of its origin; empty if it says nothing."""
    try:
        content = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def command_line(argv: Sequence[str]) -> str:
    """`sys.argv` as a line to be typed: `python -m experiments.run …`."""
    if not argv:
        return ""
    program = Path(argv[0])
    if program.suffix == ".py":
        parts = list(program.with_suffix("").parts)
        if parts[-1] == "__main__":
            parts.pop()
        start = len(parts) - 1 - parts[::-1].index("experiments") if "experiments" in parts else -1
        words = ["python", "-m", ".".join(parts[start:])] if start >= 0 else ["python", argv[0]]
    else:
        words = [program.name]
    return shlex.join([*words, *argv[1:]])


def sweep_command(folder: Path, module: str = "experiments.run") -> str | None:
    """The command of a sweep, from what Hydra kept of it; None if it kept nothing."""
    path = folder / MULTIRUN
    if not path.is_file():
        return None
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        return None
    overrides = OmegaConf.select(config, "hydra.overrides", default={})
    hydra = [str(o) for o in overrides.get("hydra", []) if not str(o).startswith("hydra.mode=")]
    task = [str(o) for o in overrides.get("task", [])]
    return shlex.join(["python", "-m", module, "-m", *task, *hydra])


def facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The lines of "Where it comes from": what somebody needs to trust or to repeat it."""
    packages = provenance.get("packages") or {}
    cores = provenance.get("cpus_usable")
    lines = {
        "Code revision": _revision(provenance.get("revision")),
        "Seed": provenance.get("seed"),
        "World": provenance.get("backend"),
        "Machine": _joined(provenance.get("cpu"), f"{cores} cores usable" if cores else None),
        "Platform": provenance.get("platform"),
        "Python": provenance.get("python"),
        "Packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "Started": provenance.get("started_at"),
        "Took": _took(provenance),
    }
    known = {*_KNOWN, "packages", "revision", "seed", "backend"}
    others = {k: v for k, v in provenance.items() if k not in known and _plain(v)}
    named = {name: str(value) for name, value in lines.items() if value not in (None, "")}
    return named | {name.replace("_", " "): str(value) for name, value in others.items()}


_KNOWN = (
    "argv", "python", "platform", "cpu", "cpus_usable", "threads", "started_at", "wall_s",
    "cpu_s", "peak_rss_mb",
)  # fmt: skip


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def _revision(revision: Any) -> str | None:
    """The commit; what follows a `+` is the hash of changes that were not committed."""
    if not isinstance(revision, str):
        return None
    commit, plus, changes = revision.partition("+")
    return f"{commit} with uncommitted changes (hash {changes})" if plus else commit


def _took(provenance: Mapping[str, Any]) -> str | None:
    wall, cpu = provenance.get("wall_s"), provenance.get("cpu_s")
    if not isinstance(wall, int | float):
        return None
    cost = f", {cpu:.3g} s of CPU" if isinstance(cpu, int | float) else ""
    return f"{wall:.3g} s{cost}"
