"""The settings of a comparison with measurements, from KEY=VALUE words of a command line.

Knows names, types and defaults. It does not know what is compared.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from experiments.own_settings import FOLDER, new_folder, read_value
from simulator.bounds import check_count, check_number
from workbench.errors import ConfigError

T = TypeVar("T")
NO_PROFILE = "none"
# of a server that schedules a step only once the last one is through, as the H100 points' did
SYNCHRONOUS_HOST_S, SYNCHRONOUS_HOST_ROW_S = 1.3e-3, 30e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSettings:
    """A measured run and what it is compared with.

    Attributes:
        measured: Folder of the run: meta.json, requests.jsonl, config.json, timeseries.csv.
        requests: File of the requests that were sent.
        profile: Folder of a layer-wise profile of the model on the GPU; "none": kernel tables.
        profiles_dir: Where kernels/<system> lies: tables of all-reduces, and of all kernels.
        launch_gap_s: Seconds that the GPU waits for launches in a step without a captured graph.
        model, hardware: Options of conf/ that replace what the folder says.
    """

    measured: str
    requests: str
    profile: str = NO_PROFILE
    profiles_dir: str = "../shared/profiles"
    launch_gap_s: float = 1e-3
    model: str | None = None
    hardware: str | None = None

    def __post_init__(self) -> None:
        check_number("launch_gap_s", self.launch_gap_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiliconSettings:
    """A table of closed-loop operating points and what it is compared with.

    Attributes:
        points: CSV with a point a line.
        profiles_dir: Where kernels/<system> lies.
        host_overhead_s: Seconds a step that the GPU waits for the host.
        host_overhead_per_request_s: The same for every row of the batch.
        requests_per_user: Requests in all = concurrency times this.
        seed: Of the lengths.
        jobs: Points that are simulated at once; 0: one a core.
    """

    points: str
    profiles_dir: str = "../shared/profiles"
    host_overhead_s: float = SYNCHRONOUS_HOST_S
    host_overhead_per_request_s: float = SYNCHRONOUS_HOST_ROW_S
    requests_per_user: int = 10
    seed: int = 0
    jobs: int = 0

    def __post_init__(self) -> None:
        check_number("host_overhead_s", self.host_overhead_s)
        check_number("host_overhead_per_request_s", self.host_overhead_per_request_s)
        check_count("requests_per_user", self.requests_per_user)
        check_count("jobs", self.jobs, 0)


def read_settings(words: Sequence[str], kind: type[T]) -> tuple[T, Path]:
    """(settings, folder of the results) of a command line.

    Raises:
        ConfigError: A word that is no KEY=VALUE, an unknown or missing key, or a bad value.
    """
    folder = new_folder()
    known = {field.name: field for field in fields(cast(Any, kind))}
    values: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator:
            raise ConfigError(f"{word}: cannot be read; give KEY=VALUE, keys: {', '.join(known)}")
        if key == FOLDER:
            folder = Path(text)
        elif key not in known:
            near = difflib.get_close_matches(key, [*known, FOLDER], n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise ConfigError(f"{word}: there is no setting {key!r}; {hint}")
        else:
            values[key] = text if known[key].type in (str, "str") else read_value(word, text)
    for name in ("measured", "requests", "points"):
        if name in known and not values.get(name):
            raise ConfigError(f"{name} is not set: give it on the command line, {name}=PATH")
    try:
        return kind(**values), folder
    except TypeError:
        raise ConfigError(f"{' '.join(words)}: a value is of the wrong type") from None
