"""What was asked for on the command line, put in order: world, model, settings, server.

Knows which flags belong to which world and how they become settings of a run. It builds nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.config_dir import as_override
from experiments.serving import demo
from experiments.serving.flags import ENGINE, SIMULATOR, make_parser
from experiments.serving.model_source import ModelSource
from experiments.serving.refused_flags import without_idle_flags
from simulator.scaled_clock import FASTEST, SLOWEST
from workbench.errors import ConfigError

KEY_VARIABLES = ("WORKBENCH_API_KEY", "VLLM_API_KEY")
# settings of the engine that a simulated model has, too
_ALSO_SIMULATED = ("dtype", "kv_cache_dtype")
_ONLY_SIMULATED = ("speed", "mean_output_tokens")
LONGEST = 1e6
DUMMY = "dummy"
PRIORITY = ("scheduler.policy=priority", "queue=priority", "victim=lowest_priority")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """One command line.

    Attributes:
        backend: "engine" or "simulator".
        model: What is served.
        overrides: Choices and settings of a run, for Hydra.
        server: Fields of the HTTP server's settings by name.
        speed: Simulated seconds a second.
        mean_output_tokens: See DrawnTokens.
        tokenizer: Folder, or None for the model's.
        skip_tokenizer_init: Serve token ids only.
        others: Flags of a single part (grpc_port, max_log_len …) by name; only those given.
    """

    backend: str
    model: ModelSource
    overrides: tuple[str, ...]
    server: Mapping[str, Any]
    speed: float
    mean_output_tokens: float | None
    tokenizer: Path | None
    skip_tokenizer_init: bool
    others: Mapping[str, Any]

    @property
    def is_simulated(self) -> bool:
        """Whether the simulator serves."""
        return self.backend == SIMULATOR


def read_options(argv: Sequence[str], environ: Mapping[str, str]) -> ServeOptions:
    """The options of a command line.

    Args:
        argv: The words behind `workbench serve`.
        environ: The environment: API keys may stand there.

    Raises:
        ConfigError: What cannot be, by its name and with the cure.
    """
    parser = make_parser()
    words = without_idle_flags([_dashes(word) for word in argv], parser._option_string_actions)
    given = {k: v for k, v in vars(parser.parse_intermixed_args(words)).items() if v is not None}
    positional = list(given.pop("words", ()))
    names = given.get("server.served_model_names", [])
    choices = [word for word in (*positional, *names) if "=" in word]
    given["server.served_model_names"] = [name for name in names if "=" not in name]
    model = _model([w for w in positional if "=" not in w], given.pop("model", None))
    backend, choices = _backend(given.pop("backend", None), choices)
    if backend == ENGINE and model.is_preset:
        _check_random_weights(model, given, choices)
    server = {k.removeprefix("server."): v for k, v in given.items() if k.startswith("server.")}
    tokenizer = given.pop("tokenizer", None)
    return ServeOptions(
        backend=backend,
        model=model,
        overrides=tuple(_overrides(given, backend, model, choices)),
        server=_server(server, model, environ),
        speed=_number(given, "speed", 1.0, SLOWEST, FASTEST),
        mean_output_tokens=_number(given, "mean_output_tokens", None, 1.0, LONGEST),
        tokenizer=None if tokenizer is None else Path(tokenizer).expanduser(),
        skip_tokenizer_init=bool(given.get("skip_tokenizer_init")),
        others={k: v for k, v in given.items() if k in OTHERS},
    )


OTHERS = (
    "chat_template",
    "disable_log_stats",
    "enable_log_requests",
    "grpc_port",
    "max_log_len",
    "otlp_traces_endpoint",
    "record",
    "record_steps",
)


def _dashes(word: str) -> str:
    """--max_model_len as --max-model-len; values stay as they are."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _model(names: Sequence[str], named: str | None) -> ModelSource:
    names = [*names, *([named] if named else [])]
    if not names:
        raise ConfigError(
            "MODEL is missing: workbench serve FOLDER, or workbench serve llama3_8b --backend"
            " simulator; workbench serve --help says more"
        )
    if len(names) > 1:
        raise ConfigError(
            f"{' and '.join(names)}: a server has one MODEL, and settings are written NAME=VALUE"
        )
    if names[0] == demo.NAME and not Path(demo.NAME).exists():
        return replace(ModelSource.of(str(demo.demo_folder())), name=demo.NAME)
    return ModelSource.of(names[0])


def _backend(flag: str | None, choices: Sequence[str]) -> tuple[str, list[str]]:
    """(the world, the choices without it); backend=… is another way to name it."""
    named = [c.removeprefix("backend=") for c in choices if c.startswith("backend=")]
    asked = {*named, *([flag] if flag else [])}
    if len(asked) > 1:
        raise ConfigError(f"backend: {' and '.join(sorted(asked))} are both named; choose one")
    backend = asked.pop() if asked else ENGINE
    if backend not in (ENGINE, SIMULATOR):
        raise ConfigError(f"backend={backend} must be {ENGINE} or {SIMULATOR}")
    return backend, [c for c in choices if not c.startswith("backend=")]


def _check_random_weights(
    model: ModelSource, given: Mapping[str, Any], choices: Sequence[str]
) -> None:
    """A preset on the engine is most often a simulation that lacks its flag."""
    chosen = {choice.lstrip("+").partition("=")[0] for choice in choices}
    asked = (f"backend.load_format={DUMMY}", f"+backend.load_format={DUMMY}")
    if "model" in chosen or given.get("backend.load_format") == DUMMY:
        return
    if not any(choice in asked for choice in choices):
        raise ConfigError(
            f"MODEL={model.name} is a preset, sizes without weights: did you mean --backend"
            " simulator? The engine serves the folder of a checkpoint (MODEL demo is a small random"
            f" one), or random weights of these sizes with --load-format {DUMMY}"
        )


def _overrides(
    given: Mapping[str, Any], backend: str, model: ModelSource, choices: Sequence[str]
) -> list[str]:
    """The settings of a run that flags and choices make; what is written as a choice wins."""
    chosen = {choice.lstrip("+").partition("=")[0] for choice in choices}
    made = [f"backend={backend}"]
    if "config_dir" in given:
        made.append(as_override(given["config_dir"]))
    if "model" not in chosen:
        made += _model_choice(model)
    if given.get("scheduling_policy") == "priority":
        made += [each for each in PRIORITY if each.partition("=")[0] not in chosen]
    if "seed" in given:
        made.append(f"seed={given['seed']}")
    for name, value in given.items():
        group, dot, field = name.partition(".")
        if not dot or group == "server":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if group == "backend" and backend == SIMULATOR:
            group = _simulated_group(field)
        made.append(f"{group}.{field}={text}")
    if backend == ENGINE:
        _refuse_simulated(given)
    elif "record_steps" in given:
        raise ConfigError("--record-steps times the real engine: use --backend engine")
    elif "record" in given:
        raise ConfigError("--record records the real engine: use --backend engine")
    return [*made, *choices]


def _model_choice(model: ModelSource) -> list[str]:
    if model.is_preset:
        return [f"model={model.name}"]
    if not model.has_config:
        raise ConfigError(
            f"MODEL={model.name} has a tokenizer and no config.json: say how large the model is,"
            " e.g. model=llama3_8b"
        )
    return ["model=hf_config", f"model.path='{model.folder.as_posix()}'"]


def _simulated_group(field: str) -> str:
    if field in _ALSO_SIMULATED:
        return "model"
    flag = f"--{field.replace('_', '-')}"
    raise ConfigError(
        f"{flag} is a setting of the real engine: leave it out with --backend simulator (choose"
        " hardware=, cost_model=, and --num-gpu-blocks-override for the size of the cache)"
    )


def _refuse_simulated(given: Mapping[str, Any]) -> None:
    for name in _ONLY_SIMULATED:
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is a setting of the simulator: add --backend simulator")


def _server(
    given: dict[str, Any], model: ModelSource, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Fields of the server's settings."""
    if not given["served_model_names"]:
        given["served_model_names"] = [model.name]
    keys = [*given.get("api_keys", ()), *(environ.get(name, "") for name in KEY_VARIABLES)]
    given["api_keys"] = dict.fromkeys(filter(None, keys))
    return {k: v if isinstance(v, str | int | float) else tuple(v) for k, v in given.items()}


def _number(
    given: Mapping[str, Any], name: str, default: float | None, at_least: float, at_most: float
) -> Any:
    value = given.get(name, default)
    if value is not None and not at_least <= value <= at_most:
        flag = f"--{name.replace('_', '-')}"
        raise ConfigError(f"{flag} {value:g} must be from {at_least:g} to {at_most:g}")
    return value
