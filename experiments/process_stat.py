"""What Linux tells of a process in /proc; elsewhere, and of one that has ended, nothing."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A process at one moment.

    Attributes:
        session: The id of its session's leader.
        cpu_s: CPU seconds so far, user and system.
    """

    session: int
    cpu_s: float

    @classmethod
    def read(cls, folder: Path) -> "ProcessStat | None":
        """Of the process that has the folder /proc/PID."""
        try:
            told = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = told.rpartition(")")[2].split()  # the name before may hold anything
        ticks = int(fields[11]) + int(fields[12])
        return cls(int(fields[3]), ticks / os.sysconf("SC_CLK_TCK"))
