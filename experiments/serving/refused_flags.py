"""Flags that vLLM's users know and that mean nothing here, or one thing only.

Knows names and reasons. A flag whose value is what happens anyway is taken out of the command line;
any other value, and every flag that would have to do something, is refused by its name.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.engine_args import ONLY_VALUES
from experiments.flag_parser import unknown_flag
from workbench.errors import ConfigError

_FOLDER = "MODEL is a folder on disk, and nothing is downloaded"
_WEIGHTS = "weights are served as the checkpoint has them"
_NO_PLUGINS = "code from outside is not loaded into the server"
_ONE_CORE = "a server has one engine: start several, and put `workbench route` before them"
_NO_MEDIA = "models and prompts are text only"
REFUSED: dict[str, str] = {
    "config": "write the flags on the command line",
    "middleware": _NO_PLUGINS,
    "logits-processors": _NO_PLUGINS,
    "logits-processor-pattern": _NO_PLUGINS,
    "tool-parser-plugin": _NO_PLUGINS,
    "worker-cls": _NO_PLUGINS,
    "scheduler-cls": "name the policies instead: queue=, batch_policy=, victim=, eviction=",
    "lora-modules": "adapters are not supported",
    "enable-lora": "adapters are not supported",
    "quantization": _WEIGHTS,
    "hf-overrides": _WEIGHTS,
    "hf-config-path": _FOLDER,
    "model-impl": "models are those of engine/models",
    "reasoning-parser": "thoughts are not parted from an answer",
    "enable-force-include-usage": "clients ask for it: stream_options.include_usage",
    "return-tokens-as-token-ids": "clients ask for it: return_token_ids",
    "enable-reasoning": "thoughts are not parted from an answer",
    "speculative-config": "use --num-speculative-tokens N: drafts from n-grams of the prompt",
    "compilation-config": "use --enforce-eager, or leave it out",
    "kv-transfer-config": "prefill and decode run on one engine",
    "kv-events-config": "watch /view or /metrics instead",
    "ec-transfer-config": _NO_MEDIA,
    "limit-mm-per-prompt": _NO_MEDIA,
    "allowed-local-media-path": _NO_MEDIA,
    "mm-processor-kwargs": _NO_MEDIA,
    "cpu-offload-gb": "weights and caches stay on the device",
    "kv-offloading-size": "weights and caches stay on the device",
    "swap-space": "use scheduler=swap cache.swap_space_gib=N",
    "preemption-mode": "use scheduler=swap, or leave it out",
    "num-scheduler-steps": "a step is one step",
    "use-v2-block-manager": "there is one block manager",
    "decode-context-parallel-size": "use parallel= with --backend simulator",
    "data-parallel-backend": _ONE_CORE,
    "data-parallel-address": _ONE_CORE,
    "data-parallel-rpc-port": _ONE_CORE,
    "api-server-count": "a server has one front: start several, and put `workbench route` before",
    "headless": _ONE_CORE,
    "nnodes": _ONE_CORE,
    "node-rank": _ONE_CORE,
    "ray-workers-use-nsight": _ONE_CORE,
    "override-generation-config": "change generation_config.json in the model's folder",
    "structured-outputs-config": "grammars are compiled by llguidance",
    "guided-decoding-backend": "grammars are compiled by llguidance",
    "override-attention-dtype": _WEIGHTS,
    "enable-prompt-embeds": "prompts are text or token ids",
    "ssl-ca-certs": "certificates of clients are not asked for: use a proxy in front",
    "ssl-cert-reqs": "certificates of clients are not asked for: use a proxy in front",
}
"""Flags, without dashes: the reason."""
IGNORED = frozenset(
    {
        "disable-frontend-multiprocessing",
        "disable-hybrid-kv-cache-manager",
        "disable-log-requests",
        "disable-uvicorn-access-log",
        "enable-prompt-tokens-details",
        "enable-request-id-headers",
        "enable-server-load-tracking",
    }
)
"""Flags without a value that ask for what happens anyway."""
IDLE_VALUES: dict[str, tuple[tuple[str, ...], str]] = {
    "chat-template-content-format": (("auto", "string"), "content reaches a template as text"),
    "generation-config": (("auto",), "defaults are those of generation_config.json in the folder"),
    "structured-outputs-backend": (("auto", "guidance"), "grammars are compiled by llguidance"),
}
"""Flags with a value: those that ask for what happens anyway, and why no others do."""


def without_idle_flags(argv: Sequence[str], known: Iterable[str]) -> list[str]:
    """The command line without flags that change nothing.

    Args:
        argv: The words, flags with dashes.
        known: Flags of the parser, with their dashes.

    Raises:
        ConfigError: A flag that cannot be honoured, or that nobody knows.
    """
    known = set(known)
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or flag in known:
            rest.append(word)
            continue
        name = flag.removeprefix("--")
        if name in IGNORED:
            continue
        has_value = bool(equals) or bool(words and not words[0].startswith("-"))
        if not equals and has_value:
            value = words[0]
        if not _is_idle(name, value if has_value else "true"):
            raise ConfigError(_reason(name, known))
        if has_value and not equals:
            words.pop(0)
    return rest


def _is_idle(name: str, value: str) -> bool:
    """Whether a flag of vLLM asks for what happens anyway."""
    allowed = _only_values(name)
    if allowed is None or name in REFUSED:
        return False
    return value.lower() in {str(each).lower() for each in allowed[0]}


def _only_values(name: str) -> tuple[tuple[Any, ...], str] | None:
    """Values that a flag may have, and why no others."""
    return IDLE_VALUES.get(name) or ONLY_VALUES.get(name.replace("-", "_"))


def _reason(name: str, known: set[str]) -> str:
    if name in REFUSED:
        return f"--{name} is not possible here: {REFUSED[name]}"
    only = _only_values(name)
    if only is not None:
        values = ", ".join(str(value) for value in only[0] if value is not None)
        cure = f"; only {values} can be" if values else ""
        return f"--{name} is not possible here: {only[1]}{cure}"
    return unknown_flag(f"--{name}", known, "workbench serve")
