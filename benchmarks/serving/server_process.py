"""A server in a process of its own, for the scripts in this folder: started, watched, ended.

Knows processes, `/health`, `/load` and `/metrics`. Knows nothing of what is measured.
"""

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.provenance import Stopwatch, code_revision, provenance

READY_S = 120.0
MODEL = "outputs/demo_checkpoint"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class ServerProcess:
    """`python -m experiments.serve WORDS` (or another module) while the `with` block runs.

    Args:
        words: Its command line, without address and port.
        module: What to start.
    """

    def __init__(self, *words: str, module: str = "experiments.serve") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", module, *words, "--port", str(self.port)]
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")

    def __enter__(self) -> "ServerProcess":
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: self.status("/health") == 200 or self._has_ended(), READY_S)
        except TimeoutError:
            self._has_ended()
            self.process.kill()
            raise
        if self._has_ended():
            raise RuntimeError(f"the server did not start:\n{self.said()}")
        return self

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._folder.cleanup()

    def said(self) -> str:
        """What it has written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def status(self, path: str) -> int:
        """The status of a GET; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def load(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/load"))
        return found

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        values = re.findall(
            rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.M
        )
        if not values:
            raise RuntimeError(f"/metrics has no {name}")
        return sum(map(float, values))

    def is_idle(self) -> bool:
        """Whether no request runs or waits and no KV block is held."""
        load = self.load()
        return not (
            load["num_running"]
            or load["num_waiting"]
            or load["server_load"]
            or load["kv_cache_usage"]
            or self.metric("vllm:kv_cache_usage_perc")
        )

    def children(self) -> dict[int, str]:
        """Process id and command line of every child."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = re.search(r"^PPid:\s+(\d+)", (folder / "status").read_text(), re.M)
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if parent is not None and int(parent[1]) == self.process.pid:
                found[int(folder.name)] = words
        return found

    def core_pid(self) -> int:
        """The process of the engine core."""
        pids = [pid for pid, words in self.children().items() if "spawn_main" in words]
        if len(pids) != 1:
            raise RuntimeError(f"{len(pids)} children look like an engine core")
        return pids[0]

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of the front process and of the core, MB (10^6 bytes)."""
        return {
            "front": _resident_mb(self.process.pid),
            "core": _resident_mb(self.core_pid()),
        }


def _resident_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def wait_until(is_so: Callable[[], bool], limit_s: float, every_s: float = 0.005) -> float:
    """Seconds until something is so. Raises TimeoutError."""
    start = time.perf_counter()
    while not is_so():
        if time.perf_counter() - start > limit_s:
            raise TimeoutError(f"not so after {limit_s:g} s")
        time.sleep(every_s)
    return time.perf_counter() - start


def simulated(*more: str, cost_model: str = "zero") -> tuple[str, ...]:
    """The words of a server with the simulated engine; request lines stay out of its log."""
    return (MODEL, "--backend", "simulator", f"cost_model={cost_model}", *QUIET, *more)


QUIET = ("--uvicorn-log-level", "warning")


def report(results: dict[str, Any], stopwatch: Stopwatch, words: Sequence[str] = ()) -> None:
    """Prints the results as JSON with what one must know of machine and code."""
    origin = provenance(revision=code_revision(), stopwatch=stopwatch, seed=None)
    kept = ("revision", "started_at", "cpu", "cpus_usable", "python", "platform", "wall_s")
    machine = {name: origin[name] for name in kept} | {"load_average_1min": os.getloadavg()[0]}
    command = ["python", *sys.argv, *words]
    told = {"command": " ".join(command), "machine": machine, "results": rounded(results)}
    print(json.dumps(told, indent=2))


def rounded(value: Any) -> Any:
    """The same with four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


assert platform.system() == "Linux", "these scripts read /proc"
