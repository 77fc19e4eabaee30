"""Kernels run in Triton's interpreter where there is no GPU; see interpreter.py."""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.kernels import interpreter

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(scope="session", autouse=True)
def narrow_types_by_value() -> Iterator[None]:
    """Interpreted kernels compute bfloat16 and float8 as a GPU does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if DEVICE == "cpu":
            interpreter.install(monkeypatch)
        yield


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels run in this session."""
    return torch.device(DEVICE)
