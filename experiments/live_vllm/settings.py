"""Settings of a validation against a live server. Knows limits, and how a server is started."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from experiments.live_vllm.checkpoint import ModelSizes, write_checkpoint
from experiments.live_vllm.server import Launch
from experiments.own_settings import written_value
from workbench.config import at_least, check_types
from workbench.errors import ConfigError

PLACES = ("python", "url", "steps", "recorded", "port")
KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"  # GiB; a GPU's server does not look at it


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """The server, and the loads that it gets.

    Attributes:
        python: A Python with vLLM, with which a server is started.
        url: Of a server that runs, instead.
        steps: The step record that the server at `url` writes.
        recorded: A recording of an earlier validation, to be simulated again, without a server.
        model: What to serve, a folder or a name; None: a small Llama with random weights.
        served_model_name: The name that requests ask for; None: the first that the server has.
        vocab_size: Token ids of prompts are below it.
        port: Of the server that is started; 0: any free one.
        dtype: Of the server that is started; None: vLLM's choice.
        max_num_seqs, max_num_batched_tokens, max_model_len: Of the server that is started.
        block_size: Tokens of a KV block; None: vLLM's choice.
        async_scheduling: Whether the server schedules a step before the one before it has ended.
        enforce_eager: Without torch.compile and without graphs.
        arguments: More arguments of `vllm serve`, as on a command line.
        low, medium, overload: Loads, as shares of what the server can do.
        parts: Of each load; they come in turns with the rounds of the calibration, so that what
            else the machine does falls on everything alike.
        rounds: Of the calibration, before, between and after the parts; from four in all on every
            kind of probe is in it.
        tries: Times that a part is sent, or a round measured, if others use the machine meanwhile.
        disturbed: CPUs that others may use.
        draws: Simulations of each load with the noise of steps drawn; their mean is the prediction.
        startup_timeout_s: For the start.
        request_timeout_s: Longest silence of a request.
    """

    python: str | None = None
    url: str | None = None
    steps: str | None = None
    recorded: str | None = None
    model: str | None = None
    served_model_name: str | None = None
    vocab_size: int = ModelSizes.vocab_size
    port: int = 0
    dtype: str | None = "float32"
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 256
    max_model_len: int = 2048
    block_size: int | None = None
    async_scheduling: bool = False
    enforce_eager: bool = True
    arguments: str = ""
    low: float = 0.4
    medium: float = 0.7
    overload: float = 2.0
    parts: int = 6
    rounds: int = 2
    tries: int = 3
    disturbed: float = 0.15
    draws: int = 8
    startup_timeout_s: float = 300.0
    request_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size")
        at_least(self, 16, "vocab_size")
        at_least(self, 0, "port")
        at_least(self, 1, "parts", "rounds", "tries", "draws")
        at_least(self, 1, "startup_timeout_s", "request_timeout_s")
        at_least(self, 0, "disturbed")
        at_least(self, 0.01, "low", "medium", "overload")
        if self.port > 65535:
            raise ConfigError(f"port={self.port} must be at most 65535")
        if sum(place is not None for place in (self.python, self.url, self.recorded)) != 1:
            raise ConfigError(
                "python, url and recorded: give one of them, vllm.python=PYTHON of an environment"
                " with vLLM, vllm.url=http://… of a server that runs, or vllm.recorded=FILE of an"
                " earlier validation"
            )
        if self.url is not None and self.steps is None:
            raise ConfigError(
                "steps is not set: name the file that the server's step recorder writes"
                " (vllm.steps=FILE); docs/accuracy/live_vllm.md says how it is started"
            )

    @property
    def loads(self) -> dict[str, float]:
        """Shares of what the server can do, by name."""
        return {"low": self.low, "medium": self.medium, "overload": self.overload}

    def words(self) -> list[str]:
        """What to type for the same validation, but for where the server is."""
        names = [name for name in self.__dataclass_fields__ if name not in PLACES]
        return [f"vllm.{name}={written_value(getattr(self, name))}" for name in names]

    def launch(self, folder: Path) -> Launch:
        """How to start the server; a random model is written below `folder`."""
        assert self.python is not None
        model, weights = self.model, ["--load-format", "auto"]
        if model is None:
            sizes = ModelSizes(vocab_size=self.vocab_size)
            model = str(write_checkpoint(folder / "model", sizes, self.max_model_len).resolve())
            weights = ["--load-format", "dummy"]
        given = {
            "--dtype": self.dtype,
            "--max-num-seqs": self.max_num_seqs,
            "--max-num-batched-tokens": self.max_num_batched_tokens,
            "--max-model-len": self.max_model_len,
            "--block-size": self.block_size,
        }
        flags = [word for name, value in given.items() if value for word in (name, str(value))]
        quiet = ["--disable-uvicorn-access-log", "--enable-logging-iteration-details"]
        eager = ["--enforce-eager"] if self.enforce_eager else []
        return Launch(
            python=self.python,
            model=model,
            served_model_name=self.served_model_name or "live",
            port=self.port,
            async_scheduling=self.async_scheduling,
            arguments=[*weights, *flags, *quiet, *eager, *shlex.split(self.arguments)],
            environment={} if KV_SPACE in os.environ else {KV_SPACE: "1"},
            timeout_s=self.startup_timeout_s,
        )
