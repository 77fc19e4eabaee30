"""Runs a module as a part of the suite: it ends when the suite is killed, and leaves the GPU free.

python -m experiments.gpu_suite.launch MODULE [ARGUMENTS]
"""

import ctypes
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the module."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
