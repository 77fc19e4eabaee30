"""A program in a process of its own in which torch cannot be imported."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def run_without_torch(program: str) -> "subprocess.CompletedProcess[str]":
    """Run some Python in the root of the checkout; what it says and how it ends."""
    hidden = f"import sys; sys.modules['torch'] = None; {program}"
    command = [sys.executable, "-c", hidden]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
