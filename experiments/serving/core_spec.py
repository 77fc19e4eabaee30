"""From the options of a server to the settings of its core, checked before a process is started.

Knows how the config of a run is composed for a server and what a front must tell a core. The
simulated core is put together here once, too, so that its errors are told at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from engine.model_text import ModelText
from engine.served_core import CoreSpec
from experiments.serving.core_settings import to_plain
from experiments.serving.options import ServeOptions
from experiments.serving.text import spoken_tokens, tokenizer_file, uses_byte_tokenizer
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from experiments.assemble import Assembly

ENGINE_CORE = "experiments.serving.worlds:engine_core"
SIMULATED_CORE = "experiments.serving.worlds:simulated_core"
# groups of a run that a server has no use for
CLIENTS = "clients bring the requests: leave it out, and see workbench bench serve"
NOT_SERVED = {"workload": CLIENTS, "router": "see workbench route", "slo": CLIENTS}
# groups of a simulation that an engine has no use for
MACHINE = "the engine runs on this machine as it is: leave it out, or add --backend simulator"
NOT_REAL = {"hardware": MACHINE, "cost_model": MACHINE}


@dataclass(frozen=True, slots=True)
class PlannedCore:
    """A core that can be started.

    Attributes:
        options: What was asked for.
        config: The composed config.
        notes: What was decided for the user, a line each.
        assembly: The simulated server, put together; None for the engine.
    """

    options: ServeOptions
    config: DictConfig
    notes: list[str]
    assembly: "Assembly | None"

    @classmethod
    def of(cls, options: ServeOptions) -> "PlannedCore":
        """Compose the config and check it as far as it can be without the engine.

        Raises:
            ConfigError and Hydra's errors.
        """
        from experiments.run import compose_config
        from experiments.schema import run_settings

        refused = NOT_SERVED if options.is_simulated else NOT_SERVED | NOT_REAL
        for override in options.overrides:
            group = override.lstrip("+").partition("=")[0].partition(".")[0]
            if group in refused:
                raise ConfigError(f"{override}: {refused[group]}")
        config = compose_config(options.overrides)
        run_settings(config)
        if not options.is_simulated:
            return cls(options, config, [], None)
        from experiments.serving.kv_blocks import with_calibrated_blocks
        from experiments.serving.simulated import assemble_served

        config, notes = with_calibrated_blocks(config)
        assembly = assemble_served(config)
        return cls(options, config, [*assembly.notes, *notes], assembly)

    def spec(self, text: ModelText) -> CoreSpec:
        """How the core is made, by whoever starts it.

        Args:
            text: The text side of the model.
        """
        settings: dict[str, Any] = {
            "config": to_plain(self.config),
            "model": self.options.model.name,
            "tokenizer": self._tokenizer(text),
            "eos_token_ids": [i for i in (text.eos.primary, *text.eos.others) if i is not None],
        }
        if self.assembly is None:
            for name in ("record", "record_steps"):
                settings[name] = self.options.others.get(name)
            return CoreSpec(ENGINE_CORE, settings)
        settings |= {
            "speed": self.options.speed,
            "mean_output_tokens": self.options.mean_output_tokens,
            "vocabulary": self._vocabulary(self.assembly, text),
        }
        return CoreSpec(SIMULATED_CORE, settings)

    def _tokenizer(self, text: ModelText) -> str | None:
        if text.tokenizer is None:
            return None
        file = tokenizer_file(self.options)
        if file is None:
            return "bytes" if uses_byte_tokenizer(self.options) else None
        return str(file)

    def _vocabulary(self, assembly: "Assembly", text: ModelText) -> dict[str, Any]:
        """Of the model that is named, whoever's sizes and prices it is simulated with."""
        model, size = self.options.model, assembly.model.vocab_size
        if model.has_config:
            from simulator.model_config import ModelConfig

            size = ModelConfig.from_hf_config(model.folder).vocab_size
        elif text.tokenizer is not None:
            size = len(text.tokenizer)
        spoken: list[int] = []
        closing: list[int] = []
        if text.tokenizer is not None:
            spoken, closing = spoken_tokens(text.tokenizer, size)
        eos = text.eos.primary
        return {
            "size": size,
            "spoken": spoken,
            "closing": closing,
            "eos_token_id": eos if eos is not None and eos < size else None,
        }
