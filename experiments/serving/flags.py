"""The command line of `workbench serve`: names, types and help.

A flag that stands for a setting of a run has that setting's full name as its destination
("scheduler.max_num_seqs"), one of the HTTP server that of its field ("server.port"): who reads the
flags need not know them one by one.
"""

import argparse

from experiments.config_dir import FLAGS as CONFIG_DIR
from experiments.flag_parser import FlagParser
from experiments.serving.flag_types import add_switch, names, whole_number
from experiments.serving.model_flags import add_cache, add_model, add_scheduler

USAGE = "workbench serve MODEL [--backend engine|simulator] [FLAG …] [GROUP=OPTION …]"
DESCRIPTION = """\
Serves a model to real clients: an HTTP server that speaks OpenAI's API (/v1/completions,
/v1/chat/completions, …), in front of the real engine or of a simulated one.

MODEL is a folder with a checkpoint (config.json, tokenizer, weights), the name of a preset such as
llama3_8b, or demo: a small random model that is written to outputs/. The simulator needs neither
weights nor torch nor a GPU: it takes the time that the real hardware would take and answers with
random words.
"""
EPILOG = """\
examples:
  workbench serve demo                            a small random model, on this machine's GPU or CPU
  workbench serve FOLDER                          a checkpoint
  workbench serve llama3_8b --backend simulator   a preset, simulated: no folder, no torch, no GPU
  workbench serve FOLDER --backend simulator --speed 10 \\
      cost_model=roofline hardware=h100 model=llama3_8b
                                                  FOLDER's tokenizer, as Llama 3 8B on an H100, and
                                                  ten times as fast
  workbench serve FOLDER --backend simulator cost_model=zero
                                                  steps that take no time

GROUP=OPTION and GROUP.NAME=VALUE choose what runs choose, too: model, hardware, parallel,
cost_model, scheduler, cache, queue, batch_policy, victim, eviction (workbench list shows them).
Then: http://HOST:PORT/docs is the API, /view shows what the scheduler does, /metrics is for
Prometheus.
"""
ENGINE, SIMULATOR = "engine", "simulator"


def make_parser() -> FlagParser:
    """The parser; every flag that was not given is None."""
    parser = FlagParser(
        prog="workbench serve",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "words", nargs="*", metavar="MODEL", help="folder, preset or demo; see above"
    )
    parser.add_argument("--model", metavar="MODEL", help="another way to name it")
    _add_world(parser)
    _add_server(parser)
    _add_operation(parser)
    add_model(parser)
    add_scheduler(parser)
    add_cache(parser)
    _add_chat(parser)
    _add_observability(parser)
    return parser


def _add_world(parser: FlagParser) -> None:
    group = parser.add_argument_group("which world")
    group.add_argument(
        "--backend",
        choices=(ENGINE, SIMULATOR),
        help="the real engine (needs torch), or a simulated one [engine]",
    )
    group.add_argument(
        "--speed",
        type=float,
        metavar="X",
        help="simulator: simulated seconds a second, 0.01 to 1000 [1]",
    )
    group.add_argument(
        "--mean-output-tokens",
        type=float,
        metavar="N",
        help="simulator: answers end by themselves after N tokens on average [only answers without"
        " max_tokens do, after 256]",
    )
    group.add_argument("--seed", type=whole_number, metavar="N", help="of random answers [0]")
    group.add_argument(
        *CONFIG_DIR, dest="config_dir", metavar="FOLDER", help="with options of your own"
    )


def _add_server(parser: FlagParser) -> None:
    group = parser.add_argument_group("HTTP server")
    add = group.add_argument
    add(
        "--host",
        dest="server.host",
        metavar="ADDRESS",
        help="address to listen on [127.0.0.1: this machine only]",
    )
    add("--port", dest="server.port", type=int, metavar="N", help="0 takes a free one [8000]")
    add("--uds", dest="server.uds", metavar="PATH", help="listen on a Unix socket instead")
    add(
        "--api-key",
        dest="server.api_keys",
        action="append",
        metavar="KEY",
        help="ask clients for this key; may be repeated. Also from WORKBENCH_API_KEY and"
        " VLLM_API_KEY, which do not show in the process list [open to all]",
    )
    add(
        "--served-model-name",
        dest="server.served_model_names",
        nargs="+",
        metavar="NAME",
        help="what requests call the model [MODEL as it was given]",
    )
    add("--root-path", dest="server.root_path", metavar="PATH", help="prefix a proxy takes off")
    add("--ssl-keyfile", dest="server.ssl_keyfile", metavar="FILE", help="serve HTTPS")
    add("--ssl-certfile", dest="server.ssl_certfile", metavar="FILE", help="serve HTTPS")
    for name in ("origins", "methods", "headers"):
        add(
            f"--allowed-{name}",
            dest=f"server.allowed_{name}",
            type=names,
            metavar="A,B",
            help=f"CORS: {name} of pages of other sites that may call",
        )
    add_switch(group, "allow-credentials", "server.allow_credentials", "CORS: with cookies")
    add("--grpc-port", type=int, metavar="N", help="serve gRPC, too, on this port [no gRPC]")


def _add_operation(parser: FlagParser) -> None:
    add = parser.add_argument_group("under load, and when things fail").add_argument
    add(
        "--max-queue",
        dest="server.max_queue",
        type=whole_number,
        metavar="N",
        help="requests that may wait before new ones get 503 with Retry-After [no limit]",
    )
    add(
        "--drain-timeout",
        dest="server.drain_timeout",
        type=float,
        metavar="S",
        help="seconds that open requests may go on after SIGTERM [30]",
    )
    add(
        "--max-core-restarts",
        dest="server.max_core_restarts",
        type=int,
        metavar="N",
        help="start a dead engine again up to N times; /health says 503 meanwhile [0]",
    )
    add(
        "--max-core-silence",
        dest="server.max_core_silence",
        type=float,
        metavar="S",
        help="/health says 503 once the engine's process has given no sign of life for S seconds,"
        " or is in a step longer than --max-step-time; 0: never [10]",
    )
    add(
        "--max-step-time",
        dest="server.max_step_time",
        type=float,
        metavar="S",
        help="a step that takes longer counts as silence, from its beginning; more for long prompts"
        " on slow processors; 0: any [300]",
    )
    add(
        "--restart-silence",
        dest="server.restart_silence",
        type=float,
        metavar="S",
        help="kill the engine's process after S seconds of silence (a step may take"
        " --max-step-time), so that --max-core-restarts starts another one; 0: never [0]",
    )


def _add_chat(parser: FlagParser) -> None:
    group = parser.add_argument_group("chats and tools")
    add = group.add_argument
    add(
        "--chat-template",
        metavar="FILE",
        help="Jinja template of chats, a file or the text itself [the tokenizer's]",
    )
    add(
        "--trust-request-chat-template",
        dest="server.allow_chat_template",
        action="store_true",
        default=None,
        help="a request may bring a chat template of its own (run in a sandbox)",
    )
    add("--response-role", dest="server.response_role", metavar="ROLE", help="[assistant]")
    add(
        "--tool-call-parser",
        dest="server.tool_call_parser",
        metavar="NAME",
        help="how tool calls are read in an answer: hermes, llama3_json, mistral …",
    )
    add(
        "--enable-auto-tool-choice",
        dest="server.enable_auto_tool_choice",
        action="store_true",
        default=None,
        help="the model may call tools by its own choice; needs --tool-call-parser",
    )
    add(
        "--max-logprobs",
        dest="server.max_logprobs",
        type=int,
        metavar="N",
        help="most log probabilities a token; -1: the vocabulary [20]",
    )


def _add_observability(parser: FlagParser) -> None:
    group = parser.add_argument_group("logs and traces")
    add = group.add_argument
    add_switch(group, "enable-log-requests", "enable_log_requests", "log a line a request [no]")
    add_switch(group, "access-log", "server.access_log", "log a line an HTTP response [no]")
    add(
        "--disable-log-stats",
        action="store_true",
        default=None,
        help="no line every 10 s about throughput, queue and cache",
    )
    add(
        "--max-log-len",
        type=int,
        metavar="N",
        help="most characters of a client's text in a line of the log [all]",
    )
    add(
        "--log-format",
        dest="server.log_format",
        choices=("text", "json"),
        help="lines for people or for machines [text]",
    )
    add(
        "--uvicorn-log-level",
        dest="server.log_level",
        metavar="LEVEL",
        help="critical, error, warning, info, debug or trace [info]",
    )
    add(
        "--otlp-traces-endpoint",
        metavar="URL",
        help="send OpenTelemetry traces there (pip install -e '.[otel]')",
    )
    add(
        "--record",
        metavar="FOLDER",
        help="engine: record all requests and decisions there as they come, for"
        " python -m experiments.parity run=FOLDER",
    )
    add(
        "--record-steps",
        metavar="FILE",
        help="engine: leave the time of every step in a CSV, for workbench calibrate",
    )
