"""Which dataclass stands behind which group of the configuration.

Knows the groups that are plain settings (one frozen dataclass each) and registers them with Hydra,
so that their defaults live in the dataclass only, every field can be overridden by name, and a
misspelt or ill-typed one is refused. Policies, models and workloads are composed by `_target_`.

A field of `MAY_BE_UNSET` is null in the config unless somebody chose a value, so that `assemble`
can tell a default from a choice.
"""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from workbench.config import SchedulerConfig, at_least, check_types
from workbench.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
SCHEMA = "schema"
DATACLASSES = {
    "scheduler": "workbench.config.SchedulerConfig",
    "cache": "workbench.config.CacheConfig",
    "cluster": "simulator.cluster.ClusterConfig",
    "parallel": "simulator.parallel.ParallelConfig",
    "slo": "workbench.metrics.SLO",
    "uncertainty": "experiments.uncertainty.Uncertainty",
}
MAY_BE_UNSET = {"scheduler": "max_num_batched_tokens"}
GROUPS = frozenset(DATACLASSES) | {
    "model",
    "hardware",
    "cost_model",
    "workload",
    "batch_policy",
    "queue",
    "victim",
    "eviction",
    "router",
    "backend",
}


OPTIONAL = frozenset({"uncertainty"})  # groups that a run may be without


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings at the top of the config. What they mean is told in `conf/config.yaml`."""

    seed: int
    traces_dir: str
    charts: bool
    timeline: bool
    progress: bool
    fail_fast: bool
    resume: bool

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 0, "seed")


def run_settings(config: DictConfig) -> RunSettings:
    """The top of a composed config, checked.

    Raises ConfigError for a key that nothing reads, here or in a group, and for one that is gone.
    """
    for name in (*RunSettings.__dataclass_fields__, *sorted(GROUPS - OPTIONAL)):
        if name not in config:
            raise ConfigError(f"{name} is missing, and every run needs it: leave out ~{name}")
    for group in DATACLASSES:
        check_names(config.get(group) or {}, group)
    values: dict[str, Any] = {}
    for key in map(str, config):
        if key in RunSettings.__dataclass_fields__:
            values[key] = config[key]
        elif key not in GROUPS and key != "hydra":
            raise ConfigError(f"{key}: nothing reads this setting; remove it (+{key}=…)")
    return RunSettings(**values)


# Hydra's node of the scheduler. It has a name in this module because worker processes unpickle it.
SchedulerSettings = make_dataclass(
    "SchedulerSettings",
    [
        (f.name, int | None, field(default=None))
        if f.name == MAY_BE_UNSET["scheduler"]
        else (f.name, f.type, field(default=f.default))
        for f in fields(SchedulerConfig)
    ],
    namespace={"__module__": __name__},
)


def register_schemas() -> None:
    """Makes `GROUP/schema` known to Hydra for every group of `DATACLASSES`. May be called again."""
    store = ConfigStore.instance()
    for group in DATACLASSES:
        store.store(group=group, name=SCHEMA, node=_schema(group))


def _schema(group: str) -> DictConfig:
    cls = SchedulerSettings if group == "scheduler" else get_class(DATACLASSES[group])
    node: DictConfig = OmegaConf.structured(cls)
    OmegaConf.set_readonly(node, False)  # a frozen dataclass gives a read-only node
    return node


def settings(config: DictConfig, group: str) -> Any:
    """The frozen dataclass of a group, checked by its own `__post_init__`.

    The group may be a typed node (composed by Hydra) or a plain one (read from a run folder).
    Raises ConfigError naming `GROUP.FIELD`.
    """
    # an optional group that was not chosen has its defaults
    given = config.get(group) or {}
    check_names(given, group)
    node = OmegaConf.merge(_schema(group), given)
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
    if not is_chosen(config, group):
        del values[MAY_BE_UNSET[group]]
    with naming_groups(group):
        return get_class(DATACLASSES[group])(**values)


def check_names(node: Mapping[Any, Any], group: str) -> None:
    """Raises ConfigError for a setting that the dataclass of the group does not have.

    Hydra refuses such a name unless it is forced in with `++`.
    """
    known = [f.name for f in fields(get_class(DATACLASSES[group]))]
    for name in map(str, node):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {group}.{close[0]}? " if close else ""
            raise ConfigError(
                f"{group}.{name}={node[name]}: there is no setting '{group}.{name}'; {hint}"
                f"{group} has: {', '.join(known)}"
            )


def is_chosen(config: DictConfig, group: str) -> bool:
    """Whether the field of `MAY_BE_UNSET` has a value; true for a group that has no such field."""
    name = MAY_BE_UNSET.get(group)
    return name is None or config[group].get(name) is not None


@contextmanager
def naming_groups(*groups: str) -> Iterator[None]:
    """Puts the group before the name of a setting with which a ConfigError begins.

    `max_num_seqs=0 must be …` becomes `scheduler.max_num_seqs=0 must be …`.
    """
    try:
        yield
    except ConfigError as error:
        name = str(error).partition("=")[0]
        for group in groups:
            if name in {f.name for f in fields(get_class(DATACLASSES[group]))}:
                raise ConfigError(f"{group}.{error}") from error
        raise


def group_options(conf_dir: Path = CONF_DIR) -> dict[str, dict[str, str]]:
    """Every group of `conf/` with its options and the first comment line of each, by name."""
    groups: dict[str, dict[str, str]] = {}
    for folder in sorted(p for p in conf_dir.iterdir() if p.is_dir() and p.name != "hydra"):
        options = {f.stem: _first_comment(f) for f in sorted(folder.glob("*.yaml"))}
        if options:
            groups[folder.name] = options
    return groups


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
        if line and not line.startswith("#"):
            break
    return ""
