"""Fixtures for all tests."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = "WORKBENCH_SHARED"

# without a GPU Triton's kernels are interpreted; Triton reads this when a kernel is defined, and
# asking torch instead would make every test without torch pay for its import
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# tests run side by side: threads of one would wait for cores that another one has
os.environ.setdefault("OMP_NUM_THREADS", "1")

# no test is timed: a busy machine is not a failure
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")


def pytest_collection_finish() -> None:
    """Everything imported stays to the end: a collection need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with traces, scenarios and measurements that are not part of the project.

    Named by the environment variable WORKBENCH_SHARED, by default ../shared beside the checkout. A
    test that needs it is skipped where it is absent.
    """
    path = Path(os.environ.get(SHARED, REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"{path} is absent: set {SHARED} to the folder with traces and measurements")
    return path
