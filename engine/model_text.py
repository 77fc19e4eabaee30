"""What a front knows of a model's text: tokenizer, ends of sequences, default parameters.

Read from a checkpoint's folder without any weights and without torch. Knows no core.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.config import EngineConfig
from engine.input_processor import EosTokens
from engine.model_files import find_eos_tokens, find_tokenizer, sampling_defaults
from workbench.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText:
    """The text side of a model.

    Attributes:
        tokenizer: Of transformers; None: token ids in and out only.
        no_tokenizer_reason: Said where one is needed and there is none.
        eos: End-of-sequence tokens.
        default_params: For requests that bring none.
    """

    tokenizer: Any = None
    no_tokenizer_reason: str = "the engine has no tokenizer"
    eos: EosTokens = field(default_factory=EosTokens)
    default_params: SamplingParams = field(default_factory=SamplingParams)

    @classmethod
    def of_folder(
        cls,
        folder: str | Path,
        tokenizer: str | Path | None = None,
        *,
        skip_tokenizer_init: bool = False,
    ) -> "ModelText":
        """The text side of a checkpoint.

        Args:
            folder: Of the model; config.json may be missing.
            tokenizer: Folder of the tokenizer; None: the model's.
            skip_tokenizer_init: Take and give token ids only.

        Raises:
            ModelLoadError: A file cannot be read, or a tokenizer that was named is missing.
        """
        model = str(folder)
        config = EngineConfig(
            model=model,
            tokenizer=None if tokenizer is None else str(tokenizer),
            skip_tokenizer_init=skip_tokenizer_init,
        )
        found, reason = find_tokenizer(config)
        return cls(
            tokenizer=found,
            no_tokenizer_reason=reason,
            eos=find_eos_tokens(model, _config_fields(Path(model)), found),
            default_params=sampling_defaults(model),
        )


def _config_fields(folder: Path) -> SimpleNamespace:
    """The fields of config.json; none where it is missing or broken, of which the core tells."""
    try:
        fields = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        fields = {}
    return SimpleNamespace(**fields) if isinstance(fields, dict) else SimpleNamespace()
