"""What an operator may set of the HTTP server; the defaults live here only.

Knows names and ranges; knows no model and no socket.
"""

from dataclasses import dataclass

from engine.server.logging import LEVELS, LOG_FORMATS
from workbench.config import at_least, check_types, one_of
from workbench.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of one server.

    Attributes:
        served_model_names: Names that a request may call the model by; the first is the one that
            answers carry.
        host, port: Where it listens; port 0 takes a free one.
        uds: Path of a Unix socket to listen on instead.
        root_path: Prefix that a proxy in front has taken off the paths.
        ssl_keyfile, ssl_certfile: Paths of a key and its certificate: serve HTTPS.
        api_keys: Any of them opens the API; none: it is open to all.
        allowed_origins, allowed_methods, allowed_headers, allow_credentials: CORS; without
            origins no page of another site may call.
        chat_template: Jinja template of chats; None: the tokenizer's.
        allow_chat_template: A request may bring its own chat template, which is run sandboxed.
        response_role: Role that the answers of a chat have.
        tool_call_parser: How tool calls are read in an answer; None: there is none.
        enable_auto_tool_choice: The model may call tools by its own choice.
        max_body_bytes: Longest body of a request.
        max_queue: Requests that may wait for the engine before new ones get 503; None: no limit.
        max_logprobs: Most log probabilities a position; -1: the whole vocabulary.
        max_answers: Most answers of one HTTP request: prompts times n.
        drain_timeout: Seconds that open requests may take to end after SIGTERM.
        max_core_restarts: Times that a dead engine core is started again.
        max_step_time: Seconds that one step of the engine core may take; a longer one is silence,
            from its beginning. 0: any. Steps of a simulation slower than time may take as much
            longer.
        max_core_silence: Seconds of silence of the engine core, whose process stands still or whose
            step takes too long, after which /health says 503; 0: never.
        restart_silence: Seconds of silence after which the core's process is killed and counts as
            dead; 0: never.
        retry_after: Seconds that a client is told to wait after a 503.
        timeout_keep_alive: Seconds that a connection stays open which is idle, or whose request
            does not come on.
        log_level: Least severe lines that are logged.
        log_format: "text" or "json".
        access_log: uvicorn writes one line a request.
    """

    served_model_names: tuple[str, ...] = ("model",)
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    root_path: str = ""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    chat_template: str | None = None
    allow_chat_template: bool = False
    response_role: str = "assistant"
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool = False
    max_body_bytes: int = 16 * 2**20
    max_queue: int | None = None
    max_logprobs: int = 20
    max_answers: int = 1024
    drain_timeout: float = 30.0
    max_core_restarts: int = 0
    max_step_time: float = 300.0
    max_core_silence: float = 10.0
    restart_silence: float = 0.0
    retry_after: int = 1
    timeout_keep_alive: int = 60
    log_level: str = "info"
    log_format: str = "text"
    access_log: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 0, "port", "max_queue", "drain_timeout", "max_core_restarts", "retry_after")
        at_least(self, 0, "max_step_time", "max_core_silence", "restart_silence")
        at_least(self, 1, "max_body_bytes", "max_answers", "timeout_keep_alive")
        at_least(self, -1, "max_logprobs")
        one_of(self, "log_level", LEVELS)
        one_of(self, "log_format", LOG_FORMATS)
        self._check_names()
        if self.restart_silence and not self.max_core_restarts:
            raise ConfigError(
                f"restart_silence={self.restart_silence:g} needs max_core_restarts of at least 1"
            )
        if self.port > 65535:
            raise ConfigError(f"port={self.port} must be at most 65535")
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise ConfigError("ssl_keyfile and ssl_certfile must be set together, or neither")
        if self.enable_auto_tool_choice and self.tool_call_parser is None:
            raise ConfigError(
                "enable_auto_tool_choice needs a tool_call_parser: name the one of the model"
            )

    def _check_names(self) -> None:
        if not self.served_model_names or not all(self.served_model_names):
            raise ConfigError(
                f"served_model_names={self.served_model_names!r} must hold at least one name, and "
                "no empty one"
            )
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                # the key itself stays out of the message
                raise ConfigError("an api_key must be printable ASCII without spaces, not empty")

    @property
    def model_name(self) -> str:
        """The name that answers carry."""
        return self.served_model_names[0]
