"""Runs the parts of the GPU suite one after the other, and remembers what is done.

A part that is done is not run again; one that failed or was cut off is. The state of every
part is written when it begins and when it ends, so that a machine that goes away loses at most
the point that was being measured.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.gpu_suite.parts import Part

STATE = "state.json"
DONE, RUNNING, FAILED, CUT_OFF = "done", "running", "failed", "cut off"


class Suite:
    """The suite in one folder.

    Args:
        out: Where results, logs and the state are.
        is_dry_run: Toy sizes; kernels are interpreted where there is no GPU.
    """

    def __init__(self, out: Path, is_dry_run: bool) -> None:
        self.out = out
        self._is_dry_run = is_dry_run
        (out / "logs").mkdir(parents=True, exist_ok=True)
        file = out / STATE
        self.state: dict[str, dict[str, Any]] = (
            json.loads(file.read_text()) if file.exists() else {}
        )
        self._check_mode()

    def _check_mode(self) -> None:
        """Toy sizes and real ones must not meet in one folder, where each would pass for done.

        Raises:
            ValueError: The folder is of the other mode, or there is no GPU for real sizes.
        """
        modes = {True: "a dry run", False: "a real run"}
        for name, part in self.state.items():
            if part["is_dry_run"] != self._is_dry_run:
                raise ValueError(
                    f"--out {self.out} holds {name} of {modes[part['is_dry_run']]}, and this is "
                    f"{modes[self._is_dry_run]}: choose another folder"
                )
        if not self._is_dry_run and not has_gpu():
            raise ValueError("there is no GPU here: add --dry-run for toy sizes on the CPU")

    def run(self, parts: Sequence[Part]) -> bool:
        """Run what is not done; whether everything is done now."""
        for part in parts:
            if self.state.get(part.name, {}).get("status") == DONE:
                print(f"{part.name}: done before", flush=True)
                continue
            self._note(part, RUNNING)
            start = time.monotonic()
            status = self._run(part)
            seconds = round(time.monotonic() - start, 1)
            self._note(part, status, seconds)
            print(f"{part.name}: {status} after {seconds} s", flush=True)
            if status == FAILED:
                print(_tail(self._log(part)), flush=True)
        return all(self.state[part.name]["status"] == DONE for part in parts)

    def _run(self, part: Part) -> str:
        with self._log(part).open("a") as log:
            process = subprocess.Popen(
                part.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
            )
            try:
                status = process.wait(part.limit_s)
            except subprocess.TimeoutExpired:
                return CUT_OFF
            finally:
                # its helpers too, or they would hold the GPU
                _kill_group(process)
        return DONE if status == 0 else FAILED

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self._is_dry_run and not has_gpu():
            environment["TRITON_INTERPRET"] = "1"
        return environment

    def _log(self, part: Part) -> Path:
        return self.out / "logs" / f"{part.name}.txt"

    def _note(self, part: Part, status: str, seconds: float | None = None) -> None:
        self.state[part.name] = {
            "status": status,
            "seconds": seconds,
            "is_dry_run": self._is_dry_run,
        }
        partial = self.out / f"{STATE}.partial"
        partial.write_text(json.dumps(self.state, indent=2) + "\n")
        partial.replace(self.out / STATE)


def has_gpu() -> bool:
    """Whether a driver of NVIDIA or AMD is loaded."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path, num_lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:])
