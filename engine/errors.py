"""The engine's errors that are told to a person in one line.

Knows the names of what can go wrong, not when. Each message names the value, the limit it broke
and the cure.
"""

from workbench.errors import WorkbenchError

SHUT_DOWN = "the engine was shut down: start a new one"


class ModelLoadError(WorkbenchError):
    """A checkpoint or a model config cannot become a model."""


class OutOfMemoryError(WorkbenchError):
    """A device or the host lacks the memory for what was asked."""


class InputError(WorkbenchError, ValueError):
    """A prompt or a request cannot be served. Also a ValueError, as in vLLM."""


class EngineDeadError(WorkbenchError):
    """The engine was shut down, or a step broke off; its error is the cause of this one."""


def one_line(error: BaseException) -> str:
    """An error for a person to read: its message alone where it has a cure, else its kind too."""
    if isinstance(error, WorkbenchError):
        return str(error).partition("\n")[0]
    return f"{type(error).__name__}: {error}".rstrip(": ").partition("\n")[0]
