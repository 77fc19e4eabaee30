"""The errors that are told to a person in one line.

Each message names the value, the limit it broke and the cure; the command line prints it without
a traceback. Anything else that is raised is a defect of the project.
"""


class WorkbenchError(Exception):
    """Base of every error that has a cure the user can apply."""


class ConfigError(WorkbenchError, ValueError):
    """A setting is out of range or contradicts another one. Also a ValueError, as in vLLM."""


class WorkloadError(WorkbenchError):
    """A trace or a synthetic workload cannot be used."""


class CostModelError(WorkbenchError):
    """A cost model cannot price what it is asked for."""


class SchedulerError(WorkbenchError):
    """A request or a policy asks the scheduler for what it cannot do."""
