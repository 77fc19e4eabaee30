"""What meta.json says of a server's settings: what vLLM resolved, and what it was given.

Knows where settings stand and how they are spelt. It does not know what they mean.
"""

from collections.abc import Mapping
from typing import Any

from experiments.measured.run_files import META
from workbench.errors import ConfigError

CACHE, COMPILATION, MODEL = "cache_config", "compilation_config", "model_config"
PARALLEL, SCHEDULER = "parallel_config", "scheduler_config"


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is an object; nothing else holds settings."""
    return value if isinstance(value, Mapping) else {}


class Told:
    """The settings of meta.json by section and name.

    Degrees of parallelism count as they were given: an engine that serves one of several
    data-parallel ranks may tell its own size. All else counts as it was resolved.
    """

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self._given = mapping(meta.get("engine_kwargs"))
        self._resolved = mapping(meta.get("resolved_config"))
        self._cache = mapping(meta.get("kv_cache"))

    def __call__(self, section: str, name: str, default: Any = None) -> Any:
        places = [mapping(self._resolved.get(section)), self._given]
        if section == PARALLEL:
            places.reverse()
        if section == CACHE:
            places.insert(0, self._cache)
        return next((p[name] for p in places if p.get(name) is not None), default)

    def count(self, section: str, name: str, default: int | None = None) -> int | None:
        """A whole number of at least 0; raises ConfigError for anything else."""
        value = self(section, name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise ConfigError(f"{META} holds {name}={value!r}: it must be a whole number")

    @property
    def is_speculative(self) -> bool:
        """Whether tokens were drafted."""
        return any(p.get("speculative_config") for p in (self._given, self._resolved))
