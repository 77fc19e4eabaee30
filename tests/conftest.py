"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = "WORKBENCH_SHARED"


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
