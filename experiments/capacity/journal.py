"""The simulations of a sweep that are done, kept so that none is run twice.

Knows files of one JSON line a simulation, one file a configuration. A line is written whole and at
once, so a killed search goes on behind its last simulation; a torn last line is left out. Limits
and prices are no part of a configuration here: the same simulations answer for other ones.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.run_folder import fingerprint

FOLDER = "simulations"
# what changes no simulation of the search
APART = ("capacity", "charts", "timeline")


class Journal:
    """The simulations of one configuration, by their rate scale.

    Those of another revision of the code count as well, as finished runs of a sweep do;
    `foreign` says whether there are any.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], warmup: float, revision: str | None
    ) -> None:
        plain = {key: value for key, value in config.items() if key not in APART}
        self.path = folder / FOLDER / f"{fingerprint(plain | {'warmup': warmup})}.jsonl"
        self._revision = revision
        self._records = {record["scale"]: record for record in self._read()}

    @property
    def foreign(self) -> bool:
        """Whether some of the simulations were run by another revision of the code."""
        return any(r.get("revision") != self._revision for r in self._records.values())

    def forget(self) -> None:
        """Begins anew."""
        self.path.unlink(missing_ok=True)
        self._records.clear()

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the program was killed while it wrote
            if isinstance(record, dict) and isinstance(record.get("scale"), float):
                yield record

    def get(self, scale: float) -> dict[str, Any] | None:
        """The record of a simulation, or None if it was not run yet."""
        return self._records.get(scale)

    def add(self, record: dict[str, Any]) -> None:
        """Keeps a record, on the disk before this returns."""
        record = record | {"revision": self._revision}
        self._records[record["scale"]] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
