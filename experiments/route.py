"""`workbench route --backend URL --backend URL … [GROUP=OPTION]`: the router's command line.

Knows how flags become the router's settings, and how the policy is composed by Hydra, as it is for
the simulator. How requests are routed is known by `engine/router`.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from engine.router.api_keys import ApiKey, KeyRing
from engine.router.settings import HealthSettings, PromptSettings, QueueSettings, RouterSettings
from experiments.assemble import part
from experiments.flag_parser import FlagParser
from experiments.program import run_program
from experiments.run import compose_config, setting_names
from experiments.serve import missing_package
from workbench.errors import ConfigError
from workbench.router import Router

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
BACKEND_KEY, ADMIN_KEY = "WORKBENCH_BACKEND_API_KEY", "WORKBENCH_ADMIN_KEY"
READ = ("router", "seed")
EPILOG = """\
GROUP=OPTION chooses the policy, by the same names as in the simulator (`workbench list router`):
  workbench route --backend http://127.0.0.1:8001 --backend http://127.0.0.1:8002
  workbench route --backend … --backend … router=longest_prefix router.cache_threshold=0.5
  workbench route --backend … --api-keys keys.yaml --max-concurrency 64 router=least_outstanding

keys.yaml:
  keys:
    - {name: alice, key: sk-alice, requests_per_second: 5, tokens_per_minute: 100000}
    - {name: bob, key: sk-bob}
"""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that is one field of the settings.

    Attributes:
        part: "health", "queue" or "prompt"; "": the settings themselves.
    """

    name: str
    part: str
    field: str
    kind: type
    text: str


FLAGS = (
    Flag("--max-concurrency", "queue", "max_concurrency", int, "most open requests of a backend"),
    Flag("--max-queue", "queue", "max_queue", int, "most requests waiting for a backend; then 503"),
    Flag("--queue-timeout", "queue", "queue_timeout_s", float, "longest wait, seconds; then 503"),
    Flag(
        "--max-retries", "", "max_retries", int,
        "further backends that a request is tried on before anything was answered",
    ),
    Flag("--max-body-bytes", "", "max_body_bytes", int, "longest request; then 413"),
    Flag("--body-timeout", "", "body_timeout_s", float, "longest silence within a body, seconds"),
    Flag("--connect-timeout", "", "connect_timeout_s", float, "for a connection, seconds"),
    Flag("--idle-timeout", "", "idle_timeout_s", float, "longest silence of a backend, seconds"),
    Flag("--drain-timeout", "", "drain_timeout_s", float, "for open requests at the end, seconds"),
    Flag("--health-path", "health", "path", str, "what a health check asks for"),
    Flag("--health-interval", "health", "interval_s", float, "between two health checks, seconds"),
    Flag("--health-timeout", "health", "timeout_s", float, "of a health check, seconds"),
    Flag("--unhealthy-after", "health", "unhealthy_after", int, "failed checks that eject"),
    Flag("--healthy-after", "health", "healthy_after", int, "good checks that bring back"),
    Flag("--max-failures", "health", "max_failures", int, "failed requests that eject"),
    Flag("--ejection-time", "health", "ejection_s", float, "least length of an ejection, seconds"),
    Flag("--block-size", "prompt", "block_size", int, "tokens of a remembered block of a prompt"),
    Flag("--memory-blocks", "prompt", "memory_blocks", int, "blocks remembered of each backend"),
    Flag("--bytes-per-token", "prompt", "bytes_per_token", float, "of text, for estimates"),
    Flag(
        "--default-max-tokens", "prompt", "default_max_tokens", int,
        "counted for the answer to a request without a limit",
    ),
)  # fmt: skip


GROUPS = {
    "": "a request on its way",
    "queue": "who waits",
    "health": "which backends get requests",
    "prompt": "how prompts are measured without a tokenizer",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal. The exit status: 0 drained, 1 cut short, 2 wrong usage."""
    return run_program(arguments, make_parser().format_help(), _route, setting_names=setting_names)


def _route(argv: list[str]) -> int:
    options = make_parser().parse_intermixed_args(argv)
    policy = make_policy(options.overrides)
    settings = make_settings(options)
    keys = [*_plain_keys(options.api_key), *read_keys(options.api_keys)]
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    return _serve(options, policy, settings, keys)


def _serve(
    options: argparse.Namespace, policy: Router, settings: RouterSettings, keys: list[ApiKey]
) -> int:
    try:
        from engine.router.backend import make_backends
        from engine.router.front import Front
        from engine.router.run import run_router
    except ModuleNotFoundError as error:
        raise missing_package(error) from error

    backends = make_backends(options.backend, settings)

    def started(url: str) -> None:
        up = sum(backend.health.is_up for backend in backends)
        print(
            f"router on {url}: {type(policy).__name__}, {up} of {len(backends)} backends up",
            flush=True,
        )

    async def serve() -> int:
        front = Front(policy, backends, settings, keys)
        return await run_router(front, options.host, options.port, started)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve())


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def make_parser() -> FlagParser:
    """The command line."""
    parser = FlagParser(
        prog="workbench route",
        description="An HTTP router in front of OpenAI-compatible servers: those of "
        "`workbench serve`, vLLM's, or others.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="GROUP=OPTION", help="the policy and its settings")
    add("--backend", action="append", default=[], metavar="URL", help="a server; once for each")
    add("--host", default=DEFAULT_HOST, help=f"to listen on (default: {DEFAULT_HOST})")
    add("--port", type=_port, default=DEFAULT_PORT, help=f"0: any (default: {DEFAULT_PORT})")
    add("--api-keys", type=Path, metavar="FILE", help="YAML with the clients' keys and limits")
    add("--api-key", action="append", default=[], metavar="KEY", help="a key without limits")
    add("--backend-api-key", metavar="KEY", help=f"for the backends; or {BACKEND_KEY}")
    trusted = ",".join(RouterSettings().trusted_proxies)
    add(
        "--forwarded-allow-ips", default=trusted, metavar="A,B",
        help="proxies in front whose X-Forwarded-… are passed on; *: everybody's "
        f"(default: {trusted})",
    )  # fmt: skip
    add("--admin-key", metavar="KEY", help=f"allows POST /drain; or {ADMIN_KEY}")
    levels = ("debug", "info", "warning", "error")
    add("--log-level", choices=levels, default="info", help="(default: info)")
    groups = {part: parser.add_argument_group(title) for part, title in GROUPS.items()}
    for flag in FLAGS:
        metavar = {int: "N", float: "X", str: "TEXT"}[flag.kind]
        text = f"{flag.text} (default: {_shown(default_of(flag))})"
        groups[flag.part].add_argument(
            flag.name, type=flag.kind, default=argparse.SUPPRESS, metavar=metavar, help=text
        )
    return parser


def make_policy(overrides: Sequence[str]) -> Router:
    """The policy that the same words give the simulator.

    Raises:
        ConfigError: A setting that is not the policy's, or a value that it refuses.
    """
    translated = []
    for override in overrides:
        key, sign, _ = override.lstrip("+").partition("=")
        if not sign or key.partition(".")[0] not in READ:
            raise ConfigError(
                f"{override}: the router reads router=…, router.NAME=… and seed=… only"
            )
        # a parameter that the option leaves at its default is no key of the config yet
        translated.append(f"++{override.lstrip('+')}" if "." in key else override)
    policy: Router = part(compose_config(translated), "router")
    return policy


def make_settings(options: argparse.Namespace) -> RouterSettings:
    """The router's settings. Raises ConfigError naming the flag."""
    kinds = {"health": HealthSettings, "queue": QueueSettings, "prompt": PromptSettings}
    given: dict[str, dict[str, Any]] = {name: {} for name in (*kinds, "")}
    for flag in FLAGS:
        value = getattr(options, flag.name[2:].replace("-", "_"), None)
        if value is not None:
            given[flag.part][flag.field] = value
    try:
        parts = {name: kind(**given[name]) for name, kind in kinds.items()}
        return RouterSettings(
            **parts,
            **given[""],
            trusted_proxies=tuple(
                each.strip() for each in options.forwarded_allow_ips.split(",") if each.strip()
            ),
            backend_api_key=options.backend_api_key or os.environ.get(BACKEND_KEY) or None,
            admin_key=options.admin_key or os.environ.get(ADMIN_KEY) or None,
        )
    except ConfigError as error:
        raise ConfigError(_by_flag(str(error))) from error


def read_keys(path: Path | None) -> list[ApiKey]:
    """The clients of a YAML file. Raises ConfigError."""
    if path is None:
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or "it is no YAML in UTF-8"
        raise ConfigError(f"--api-keys {path}: it cannot be read ({why})") from error
    entries = content.get("keys") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: expected a list under 'keys', each with a name and a key")
    known = [field.name for field in fields(ApiKey)]
    keys = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: key {number}"
        if not isinstance(entry, Mapping) or not {"name", "key"} <= entry.keys():
            raise ConfigError(f"{where} needs a name and a key: {{name: alice, key: sk-…}}")
        if wrong := [name for name in entry if name not in known]:
            raise ConfigError(f"{where} has no setting {wrong[0]!r}: it has {', '.join(known)}")
        try:
            keys.append(ApiKey(**entry))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    KeyRing(keys)  # says what is there twice
    return keys


def _plain_keys(given: Sequence[str]) -> list[ApiKey]:
    return [ApiKey(name=f"key-{i}", key=key) for i, key in enumerate(given, 1)]


def default_of(flag: Flag) -> Any:
    """The value without the flag, from the settings themselves."""
    settings = RouterSettings()
    return getattr(getattr(settings, flag.part) if flag.part else settings, flag.field)


def _shown(value: Any) -> str:
    if value is None:
        return "no limit"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _by_flag(message: str) -> str:
    """The message with the flag in place of the field that it begins with."""
    names = {flag.field: flag.name for flag in FLAGS} | {"trusted_proxies": "--forwarded-allow-ips"}
    for name, flag in names.items():
        if message.startswith(f"{name}="):
            return f"{flag} {message.removeprefix(f'{name}=')}"
    return message


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a whole number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
