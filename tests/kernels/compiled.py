"""Reports of the ahead-of-time compiler, made in another process.

Kernels of this process are interpreted, and Triton decides that when a kernel is defined. One
process for all of a file's kernels: each pays for the imports, and other tests use the other cores.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def reports(selections: list[str]) -> list[dict[str, Any]]:
    """One dict a kernel (kernels.aot.KernelReport), for selections such as its command takes."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, "-m", "kernels.aot", *selections],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]
