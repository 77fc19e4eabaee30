"""Where a result comes from: code revision, command, versions, machine, cost of the run.

Knows how to ask git, Python and the operating system. Knows nothing of what was run.
"""

import hashlib
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = (
    "llm-serving-workbench",
    "numpy",
    "simpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "hydra-core",
    "omegaconf",
    "hydra-joblib-launcher",
    "hydra-ray-launcher",
    "aiconfigurator-core",
    "torch",
    "triton",
    "transformers",
)


@dataclass(slots=True)
class Stopwatch:
    """Wall and CPU time since it was made.

    With `since_process_start` the CPU time counts from the start of the interpreter.
    """

    since_process_start: bool = False
    _cpu: float = field(init=False)
    _wall: float = field(init=False)

    def __post_init__(self) -> None:
        self._cpu = 0.0 if self.since_process_start else time.process_time()
        self._wall = time.perf_counter()

    def cpu_s(self) -> float:
        """CPU seconds of this process, user and system, all threads."""
        return time.process_time() - self._cpu

    def wall_s(self) -> float:
        """Wall seconds since the stopwatch was made."""
        return time.perf_counter() - self._wall


def peak_rss_mb() -> float:
    """Largest resident memory that this process has had so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code_revision() -> str | None:
    """Commit of the checkout; `+` and the hash of the difference follow where files were changed.

    None where the code is not in a git checkout.
    """
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    revision = head.decode().strip()
    difference = _git("diff", "HEAD", "--binary") or b""
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z") or b""
    if not difference and not untracked:
        return revision
    digest = hashlib.sha256(difference)
    for name in sorted(untracked.split(b"\0")):
        path = REPOSITORY / os.fsdecode(name)
        if name and path.is_file():
            digest.update(name + b"\0" + path.read_bytes())
    return f"{revision}+{digest.hexdigest()[:12]}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(*, revision: str | None, stopwatch: Stopwatch, seed: int | None) -> dict[str, Any]:
    """Everything beside the config that one needs to know to trust or repeat a result."""
    return {
        "revision": revision,
        "argv": sys.argv,
        "seed": seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "cpu": _cpu_model(),
        "cpus_usable": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
        "started_at": time.strftime(
            "%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - stopwatch.wall_s())
        ),
        "wall_s": round(stopwatch.wall_s(), 6),
        "cpu_s": round(stopwatch.cpu_s(), 6),
        "peak_rss_mb": round(peak_rss_mb(), 3),
    }
