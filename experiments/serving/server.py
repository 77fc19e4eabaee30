"""Composes the server: text, core, HTTP app and what extends it, and runs them to their end.

Knows the order in which they begin and end. It is imported once the command line is known to be
good, so that errors and help are quick.
"""

import logging.config
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.serving.banner import Banner, print_notes
from experiments.serving.core_spec import PlannedCore
from experiments.serving.flag_names import backend_in_flags, in_flags
from experiments.serving.options import ServeOptions
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    from engine.async_llm import AsyncLLM
    from engine.server.observability import ObservabilitySettings
    from engine.server.settings import ServerSettings

OBSERVED = ("disable_log_stats", "enable_log_requests", "max_log_len", "otlp_traces_endpoint")


def run(planned: PlannedCore) -> int:
    """Serve until told to end; the exit status.

    Raises:
        WorkbenchError: It cannot start; in one line, with the cure.
    """
    from engine.server.listening import bind
    from engine.server.run import run_loop
    from engine.server.tools import tool_parser

    settings = _server_settings(planned.options)
    observability = _observability(planned.options, settings)
    _check_files(settings)
    if settings.tool_call_parser is not None:
        with _in_words(in_flags):
            tool_parser(settings.tool_call_parser)
    if settings.uds is None:
        # a model may take minutes to load, only to find that it has nowhere to listen
        bind(settings.host, settings.port).close()
    logging.config.dictConfig(observability.log_config())
    run_loop(_serve(planned, settings, observability))
    return 0


async def _serve(
    planned: PlannedCore, settings: "ServerSettings", observed: "ObservabilitySettings"
) -> None:
    from engine.async_llm import AsyncLLM
    from engine.server import view
    from engine.server.app import build_app
    from engine.server.observability import Observability
    from engine.server.run import run_server
    from experiments.serving.text import load_text

    text, notes = load_text(planned.options)
    print_notes([*planned.notes, *notes])
    with _in_words(backend_in_flags):
        llm = await AsyncLLM.start(planned.spec(text), text=text)
    observability = Observability(observed)
    try:
        print_notes(llm.info.facts.get("notes", ()) if planned.assembly is None else ())
        app = build_app(llm, settings, extensions=[observability, view])
        grpc = await _start_grpc(planned.options, llm, settings, app)
        banner = Banner.of(llm.info, planned, settings.model_name, grpc and grpc.port)
        try:
            await run_server(app, llm, settings, on_listening=banner.show)
        finally:
            if grpc is not None:
                await grpc.stop()
    finally:
        observability.close()
        await llm.shutdown()


async def _start_grpc(
    options: ServeOptions, llm: "AsyncLLM", settings: "ServerSettings", app: Any
) -> Any:
    port = options.others.get("grpc_port")
    if port is None:
        return None
    from engine.server.grpc import start_grpc

    return await start_grpc(llm, settings, port, state=app.state.server)


def _server_settings(options: ServeOptions) -> "ServerSettings":
    from engine.server.settings import ServerSettings

    values = dict(options.server)
    template = options.others.get("chat_template")
    if template is not None:
        values["chat_template"] = _chat_template(template)
    with _in_words(in_flags):
        return ServerSettings(**values)


@contextmanager
def _in_words(words: Callable[[str], str]) -> Iterator[None]:
    """Say an error in other words."""
    try:
        yield
    except WorkbenchError as error:
        raise type(error)(words(str(error))) from error


def _check_files(settings: "ServerSettings") -> None:
    """Refuse files that are not there before anything is loaded.

    Raises:
        ConfigError: By the flag's name.
    """
    if settings.uds is not None and not Path(settings.uds).absolute().parent.is_dir():
        raise ConfigError(f"--uds {settings.uds}: there is no such folder; make it first")
    if settings.ssl_certfile is None or settings.ssl_keyfile is None:
        return
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"--ssl-certfile {settings.ssl_certfile} --ssl-keyfile {settings.ssl_keyfile}:"
            f" {reason}; name a certificate and its key, in PEM files"
        ) from error


def _chat_template(given: str) -> str:
    """The template of a file; what holds a Jinja tag is the template itself."""
    if "{" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--chat-template {given}: {reason}; name a file with a Jinja template"
        ) from error


def _observability(options: ServeOptions, settings: "ServerSettings") -> "ObservabilitySettings":
    from engine.server.observability import ObservabilitySettings

    given = {name: options.others[name] for name in OBSERVED if name in options.others}
    return ObservabilitySettings(
        log_level=settings.log_level, log_format=settings.log_format, **given
    )
