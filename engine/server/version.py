"""The version that the server tells."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

DISTRIBUTION = "llm-serving-workbench"


@cache
def version() -> str:
    """Of the installed distribution; "0" in a checkout that was never installed."""
    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"
