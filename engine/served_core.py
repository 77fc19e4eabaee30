"""What stands in a core process: an engine core of either world, and what serving it needs.

A world is named by a dotted function that makes it from plain settings, in the process where it
runs. Knows no message and no request.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.core_messages import CoreInfo
from workbench.config import CacheConfig
from workbench.engine_core import EngineCore
from workbench.errors import ConfigError
from workbench.request import Request

if TYPE_CHECKING:
    from engine.structured_output import GrammarCompiler


@dataclass(frozen=True, slots=True)
class CoreSpec:
    """How a core is made.

    Attributes:
        factory: "package.module:function"; called with the settings where the core is to run, it
            returns a ServedCore.
        settings: Plain values that can be pickled.
    """

    factory: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> "ServedCore":
        """Call the factory.

        Raises:
            ConfigError: There is no such function; whatever else the factory raises.
        """
        module, _, name = self.factory.partition(":")
        try:
            factory = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"factory={self.factory!r} cannot be found ({error}): name it as "
                "'package.module:function'"
            ) from error
        served: ServedCore = factory(dict(self.settings))
        return served


def nothing() -> None:
    """Nothing to give back."""


@dataclass(slots=True, kw_only=True)
class ServedCore:
    """A core with what stands around it.

    Attributes:
        core: What is driven step by step.
        info: What the front must know; see `core_info`.
        cache_config: For the keys of prefix caching.
        to_wall: From the core's clock to wall time (CLOCK_MONOTONIC, seconds).
        from_wall: And back.
        grammars: Compiles the grammars of structured output; None: there is none.
        calls: What the front may call between two steps, beside the loop's own calls; plain values
            in and out.
        shutdown: Gives back threads, files and devices.
    """

    core: EngineCore
    info: CoreInfo
    cache_config: CacheConfig
    to_wall: Callable[[float], float]
    from_wall: Callable[[float], float]
    grammars: "GrammarCompiler | None" = None
    calls: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    shutdown: Callable[[], None] = nothing


def core_info(
    core: EngineCore,
    *,
    world: str,
    vocab_size: int,
    model: str = "",
    speed: float = 1.0,
    facts: Mapping[str, Any] | None = None,
) -> CoreInfo:
    """The facts of a core; what its scheduler knows is asked there.

    Args:
        core: Built, and without requests.
        world, vocab_size, model, speed, facts: As in CoreInfo.
    """
    scheduler = core.scheduler
    cache = scheduler.kv_cache_manager
    probe = Request("probe", 1, 1)
    # prompts that fit come before those that do not
    lengths = range(1, scheduler.max_model_len)
    num_fitting = bisect_right(lengths, False, key=lambda n: not cache.fits_alone(probe, n))
    return CoreInfo(
        world=world,
        vocab_size=vocab_size,
        max_model_len=scheduler.max_model_len,
        max_prompt_tokens=num_fitting,
        num_kv_blocks=cache.pool.num_blocks,
        block_size=cache.block_size,
        enable_prefix_caching=cache.enable_caching,
        max_num_seqs=scheduler.config.max_num_seqs,
        max_num_batched_tokens=scheduler.config.max_num_batched_tokens,
        speed=speed,
        pid=os.getpid(),
        model=model,
        facts=dict(facts or {}),
    )
