"""Reports of the ahead-of-time compiler, made in other processes.

Kernels of this process are interpreted, and Triton decides that when a kernel is defined.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROCESSES = 2


def reports(selections: list[str]) -> list[dict[str, Any]]:
    """One dict a kernel (kernels.aot.KernelReport), for selections such as its command takes."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "kernels.aot", *selections[first::PROCESSES]],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for first in range(min(PROCESSES, len(selections)))
    ]
    rows = []
    for process in running:
        out, error = process.communicate()
        assert process.returncode == 0, error
        rows += [json.loads(line) for line in out.splitlines()]
    return rows
