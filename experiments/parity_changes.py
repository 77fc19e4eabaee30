"""A recorded scheduler's settings and policies as objects, with the changes that a user asks for.

Knows the names of settings. What they do, the scheduler knows.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.assemble import KINDS
from experiments.instantiate import factory
from experiments.run import compose_config
from simulator.cluster import Policies
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.recording import RecordedSettings

# the group of the config, and the field of Policies
POLICIES = {
    "queue": "queue",
    "batch_policy": "batch_policy",
    "victim": "victim_policy",
    "eviction": "eviction",
}


def changed(settings: RecordedSettings, changes: Sequence[str]) -> RecordedSettings:
    """The settings with changes: `scheduler.max_num_seqs=4`, `num_blocks=99`, `queue=fair_share`.

    Raises:
        ConfigError: A change that names no setting, or gives it a value that it cannot have.
    """
    if not changes:
        return settings
    plain = asdict(settings)
    policies = plain.pop("policies")
    groups = [change for change in changes if change.partition("=")[0] in POLICIES]
    composed = compose_config(groups) if groups else None
    for group in (change.partition("=")[0] for change in groups):
        assert composed is not None
        policies[group] = OmegaConf.to_container(composed[group], resolve=True)
    config = OmegaConf.create(plain | policies)
    for change in changes:
        if change not in groups:
            _set(config, change)
    made = cast(dict[str, Any], OmegaConf.to_container(config))
    policies = {group: made.pop(group) for group in POLICIES if group in made}
    scheduler, cache = made.pop("scheduler"), made.pop("cache")
    return RecordedSettings(
        scheduler=SchedulerConfig(**scheduler),
        cache=CacheConfig(**cache),
        policies=policies,
        **made,
    )


def _set(config: DictConfig, change: str) -> None:
    name, separator, value = change.partition("=")
    parent, _, last = name.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    if not separator or not isinstance(group, DictConfig) or last not in group:
        known = group if isinstance(group, DictConfig) else config
        raise ConfigError(
            f"{change}: a replay has no such setting; "
            f"{parent or 'it'} has: {', '.join(map(str, known))}"
        )
    OmegaConf.update(config, name, OmegaConf.from_dotlist([f"x={value}"]).x)


def policies_of(settings: RecordedSettings) -> Policies:
    """Makers of what decided in a recorded run.

    Raises:
        ConfigError: A class that is not there, or is of another kind, or lacks a parameter.
    """
    made: dict[str, Any] = {
        field: factory(OmegaConf.create(dict(settings.policies[group])), group, KINDS[group])
        for group, field in POLICIES.items()
        if group in settings.policies
    }
    return Policies(**made)
