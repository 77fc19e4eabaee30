"""A tiny checkpoint and an LLM on it, for the tests of one file."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from engine import LLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.engine.checkpoints import make_checkpoint
    from tests.engine.small_llm import SMALL

    return str(make_checkpoint(tmp_path_factory.mktemp("llama"), **SMALL))


@pytest.fixture(scope="module")
def llm(folder: str) -> "LLM":
    from tests.engine.small_llm import load

    return load(folder)
