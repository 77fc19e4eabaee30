"""The command line of `workbench bench serve`: flags as vLLM's serving benchmark has them.

Knows names, defaults and help. What the values mean is checked by `settings`.
"""

import argparse

from experiments.bench.arrivals import RAMPS
from experiments.bench.request_body import CHAT, COMPLETIONS
from experiments.flag_parser import FlagParser

DESCRIPTION = """\
Load a running server with requests and measure what its clients would see.

It speaks to any server with OpenAI's API: `workbench serve`, `workbench route`, vLLM and others.
Without GROUP=OPTION words the requests are random ones of given lengths; with them they come from
a workload of the project (`workbench list workload`), traces and conversations included.
"""
EXAMPLES = """\
examples:
  workbench bench serve --num-prompts 50 --request-rate 4
  workbench bench serve --max-concurrency 16 --duration 60 --out outputs/bench
  workbench bench serve --request-rate 8 --goodput ttft:500 tpot:50 --save-result
  workbench bench serve workload=azure_conv traces_dir=DIR workload.rate_scale=0.1
  workbench bench serve workload=multi_turn workload.num_requests=200 --return-token-ids
  workbench bench serve --endpoint /v1/chat/completions --tokenizer outputs/demo_checkpoint

More: docs/serving/bench.md
"""


def serve_parser() -> FlagParser:
    """The parser of the whole command line."""
    parser = FlagParser(
        prog="workbench bench serve",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="GROUP=OPTION",
        help="a workload and its settings, slo=…, seed=…, as for `workbench run`",
    )
    _add_server(parser.add_argument_group("the server"))
    _add_load(parser.add_argument_group("when requests are sent"))
    _add_requests(parser.add_argument_group("what is asked"))
    _add_results(parser.add_argument_group("results"))
    return parser


def _add_server(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--base-url", help="of the server (default: http://HOST:PORT)")
    add("--host", default="127.0.0.1", help="(default: %(default)s)")
    add("--port", type=int, default=8000, help="(default: %(default)s)")
    add(
        "--endpoint",
        default=None,
        help=f"{COMPLETIONS} or {CHAT} (default: the first)",
    )
    add(
        "--backend",
        choices=("openai", "vllm", "openai-chat"),
        default="openai",
        help=f"openai-chat stands for --endpoint {CHAT}",
    )
    add("--model", help="its name on the server (default: the first of /v1/models)")
    add("--served-model-name", help="the same, if --model names something else")
    add("--api-key", help="sent as a bearer token (default: $OPENAI_API_KEY, if set)")
    add("--header", nargs="+", default=[], metavar="KEY=VALUE", help="further headers")
    add("--insecure", action="store_true", help="take any certificate of an https server")
    add(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="give a request up after so many seconds of silence (default: %(default)g)",
    )
    add(
        "--ready-check-timeout-sec",
        type=float,
        default=0.0,
        metavar="S",
        help="wait so long for the server to come up (default: %(default)g)",
    )


def _add_load(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--request-rate",
        type=float,
        metavar="R",
        help="requests a second, or inf: as fast as possible (default: inf; with a workload, its"
        " own times)",
    )
    add(
        "--burstiness",
        type=float,
        default=1.0,
        metavar="B",
        help="1: Poisson arrivals; below: burstier; above: more even (default: %(default)g)",
    )
    add("--max-concurrency", type=int, metavar="N", help="open requests at most")
    add("--ramp-up-strategy", choices=RAMPS, help="raise the rate from request to request")
    add("--ramp-up-start-rps", type=float, metavar="R", help="requests a second at the first")
    add("--ramp-up-end-rps", type=float, metavar="R", help="and at the last")
    add("--num-prompts", type=int, metavar="N", help="requests (default: 100; all of a workload)")
    add("--duration", type=float, metavar="S", help="send nothing after so many seconds")
    add(
        "--num-warmups",
        type=int,
        default=0,
        metavar="N",
        help="requests before the measurement (default: %(default)s)",
    )
    add("--seed", type=int, help="of lengths, times and prompts (default: 0)")


def add_random_lengths(group: argparse._ActionsContainer) -> None:
    """The --random-… flags, which `settings.RandomRequests` reads."""
    add = group.add_argument
    for long, short, default in (
        ("--random-input-len", "--input-len", 256),
        ("--random-output-len", "--output-len", 64),
    ):
        add(
            long,
            short,
            type=int,
            default=default,
            metavar="N",
            help="tokens (default: %(default)s)",
        )
    add(
        "--random-range-ratio",
        type=float,
        default=0.0,
        metavar="F",
        help="lengths are drawn evenly within LEN*(1-F) and LEN*(1+F) (default: %(default)g)",
    )
    add(
        "--random-prefix-len",
        type=int,
        default=0,
        metavar="N",
        help="tokens that all prompts begin with, in front of the others (default: %(default)s)",
    )


def _add_requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataset-name", choices=("random",), help="random is what there is without a workload")
    add_random_lengths(group)
    add(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="answers have exactly the length asked for; servers of OpenAI itself refuse the field",
    )
    add("--tokenizer", metavar="FOLDER", help="with tokenizer.json: prompts are words of it")
    add(
        "--prompts",
        choices=("ids", "text"),
        help="send token ids or text (default: ids; a chat takes text)",
    )
    add(
        "--vocab-size",
        type=int,
        metavar="N",
        help="of the model, for token ids without a tokenizer (default: ids below 256)",
    )
    add(
        "--return-token-ids",
        action="store_true",
        help="ask for the ids of the answers: exact times where a piece holds several tokens, and"
        " conversations that repeat what was answered (vLLM and `workbench serve` know it)",
    )
    add("--temperature", type=float, default=0.0, help="(default: %(default)g)")
    add("--top-p", type=float)
    add("--top-k", type=int)
    add("--extra-body", metavar="JSON", help="further fields of every request, a JSON object")


def _add_results(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--goodput",
        nargs="+",
        default=[],
        metavar="NAME:MS",
        help="limits that make a request good: ttft:500 tpot:50 e2el:10000",
    )
    add(
        "--percentile-metrics",
        default="ttft,tpot,itl,e2el",
        help="latencies to show (default: %(default)s)",
    )
    add("--metric-percentiles", default="50,90,99", help="(default: %(default)s)")
    add("--save-result", action="store_true", help="write a run folder: outputs/DATE/TIME")
    add("--out", metavar="FOLDER", help="write the run folder here")
    add("--no-charts", action="store_true", help="write no charts into it")
    add("--result-dir", metavar="DIR", help="write vLLM's result file into this folder")
    add("--result-filename", metavar="NAME", help="and under this name")
    add("--save-detailed", action="store_true", help="every request's times in that file, too")
    add("--label", help="noted in the results")
    add("--metadata", nargs="+", default=[], metavar="KEY=VALUE", help="noted in the results")
    add("--disable-tqdm", action="store_true", help="show no progress")
