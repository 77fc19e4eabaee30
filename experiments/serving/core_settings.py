"""The composed config on its way to a core process, in plain values.

Knows which groups a core is made of. It does not know what they mean.
"""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

GROUPS = (
    "backend",
    "model",
    "hardware",
    "parallel",
    "cluster",
    "cost_model",
    "queue",
    "batch_policy",
    "victim",
    "eviction",
    "scheduler",
    "cache",
)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """What a core reads of a composed config; can be pickled. Raises OmegaConf's errors."""
    whole = OmegaConf.masked_copy(config, [*GROUPS, "seed"])
    return cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True))


def from_plain(plain: Mapping[str, Any]) -> DictConfig:
    """The config again."""
    return OmegaConf.create(dict(plain))
