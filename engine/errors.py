"""The engine's errors that are told to a person in one line.

Knows the names of what can go wrong, not when. Each message names the value, the limit it broke
and the cure.
"""

from workbench.errors import WorkbenchError


class ModelLoadError(WorkbenchError):
    """A checkpoint or a model config cannot become a model."""


class OutOfMemoryError(WorkbenchError):
    """A device or the host lacks the memory for what was asked."""


class InputError(WorkbenchError, ValueError):
    """A prompt or a request cannot be served. Also a ValueError, as in vLLM."""


class EngineDeadError(WorkbenchError):
    """The engine was shut down, or a step broke off; its error is the cause of this one."""
