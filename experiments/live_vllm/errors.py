"""The error of a server that does not do as it should, told to a person in one line."""

from workbench.errors import WorkbenchError


class ServerError(WorkbenchError):
    """A server does not answer, or not as it should."""
