"""One server for all tests that change nothing about it."""

from collections.abc import Iterator

import pytest

from tests.engine.server.serving import RunningServer, serving


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    settings = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
    with serving(settings) as running:
        yield running
