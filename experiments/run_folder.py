"""The folder of one run: what lies in it, which markers it carries, and when it counts as finished.

Knows the names of the files a run leaves and how they are written so that a killed run never looks
finished. Knows nothing of Hydra, of the simulator or of what the files hold.
"""

import contextlib
import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError

DONE = "DONE"
FAILED = "FAILED"
STARTED = ".started"  # of a run that has begun and not ended: a killed one is recognised by it
ERROR = "error.txt"
CONFIG = "config.yaml"  # the whole composed config, every reference in it resolved
SUMMARY = "summary.json"
REQUESTS = "requests.parquet"
STEPS = "steps.parquet"
TIMELINE = "timeline.json"
RECORDING = "recording.jsonl.gz"  # of a run on the engine, for experiments.parity
NOT_SERVED = "not_served.txt"  # requests that were ignored or ended as errors, and why
PROVENANCE = "provenance.json"
CHARTS = "charts"
FILES = (
    DONE,
    FAILED,
    ERROR,
    CONFIG,
    SUMMARY,
    REQUESTS,
    STEPS,
    TIMELINE,
    RECORDING,
    NOT_SERVED,
    PROVENANCE,
)

RESULTS = (CONFIG, SUMMARY, REQUESTS, STEPS, PROVENANCE)  # what every finished run has

# settings that say how a run shows itself; its tables and its summary are the same with any of them
PRESENTATION_KEYS = frozenset({"progress", "fail_fast", "resume", "charts", "timeline"})


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of a resolved config (plain dicts and lists): equal configs give equal results.

    Presentation settings are left out, the order of keys does not matter.
    """
    relevant = {k: v for k, v in config.items() if k not in PRESENTATION_KEYS and k != "hydra"}
    text = json.dumps(relevant, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder.

    `DONE` is written last and removed first; `FAILED` says that the run ended badly.
    """

    path: Path

    def start(self) -> None:
        """Makes the folder and removes whatever an earlier run left in it, markers first."""
        self.path.mkdir(parents=True, exist_ok=True)
        ours = (STARTED, DONE, FAILED, PROVENANCE, SUMMARY, ERROR)
        theirs = [name for name in (*FILES, CHARTS) if (self.path / name).exists()]
        if theirs and not any((self.path / name).exists() for name in ours):
            raise ConfigError(
                f"hydra.run.dir={self.path} holds {theirs[0]!r} but no run of this program, and a "
                "run would overwrite it: name a new or an empty folder"
            )
        (self.path / STARTED).touch()
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / CHARTS, ignore_errors=True)

    def finish(self, config_hash: str, revision: str | None) -> None:
        """Marks the run as finished. Nothing is written into the folder after this."""
        write_json(self.path / DONE, {"config_hash": config_hash, "revision": revision})
        (self.path / STARTED).unlink(missing_ok=True)

    def fail(self, message: str, error: BaseException) -> None:
        """Records a failure: one line for people, then the traceback for developers."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / DONE).unlink()
        trace = "".join(traceback.format_exception(error))
        write_atomically(self.path / ERROR, f"{message}\n\n{trace}")
        write_atomically(self.path / FAILED, message + "\n")
        (self.path / STARTED).unlink(missing_ok=True)

    def marker(self) -> dict[str, Any] | None:
        """What `DONE` says, or None if the run has not finished (or the marker is not readable)."""
        try:
            content = json.loads((self.path / DONE).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return content if isinstance(content, dict) else None

    def is_finished(self, config_hash: str) -> bool:
        """Whether this folder holds the finished run of exactly this config."""
        marker = self.marker()
        return marker is not None and marker.get("config_hash") == config_hash

    def lacks(self, names: Iterable[str] = RESULTS) -> list[str]:
        """Those of the named files that are not there: a finished run has all that it promised."""
        return [name for name in names if not (self.path / name).exists()]

    def inputs(self) -> list[dict[str, Any]] | None:
        """The files that the run has read, as `experiments.inputs` has them; None if not told."""
        try:
            told = json.loads((self.path / PROVENANCE).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return told.get("inputs") if isinstance(told, dict) else None

    def failure(self) -> str | None:
        """The one line of a failed run, or None."""
        try:
            return (self.path / FAILED).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def summary(self) -> dict[str, Any]:
        """The numbers of a finished run. Raises FileNotFoundError before it has written them."""
        content: dict[str, Any] = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        return content


def run_folders(path: Path) -> list[RunFolder]:
    """The run folders at or below a path, in order of name: what has a marker or a summary."""
    if any((path / name).exists() for name in (DONE, FAILED, SUMMARY)):
        return [RunFolder(path)]
    found = {p.parent for name in (DONE, FAILED) for p in path.rglob(name)}
    return [RunFolder(folder) for folder in sorted(found)]
