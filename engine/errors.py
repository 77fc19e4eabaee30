"""The engine's errors that are told to a person in one line.

Knows the names of what can go wrong, not when. Each message names the value, the limit it broke
and the cure.
"""

from workbench.errors import WorkbenchError


class ModelLoadError(WorkbenchError):
    """A checkpoint or a model config cannot become a model."""


class OutOfMemoryError(WorkbenchError):
    """A device or the host lacks the memory for what was asked."""


class InputError(WorkbenchError):
    """A prompt or a request cannot be served."""
