"""`workbench bench serve | throughput | latency`.

Knows the three commands; the module of each is imported when it is called.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from experiments.program import USAGE

COMMANDS = {
    "serve": ("experiments.bench.serve", "load a running server with requests"),
    "throughput": ("experiments.bench.throughput", "many requests at once, without a server"),
    "latency": ("experiments.bench.latency", "one batch again and again, without a server"),
}
HELP = """\
usage: workbench bench COMMAND …

Measures how fast a server, the engine or the simulated engine answers.

commands:
{commands}

workbench bench COMMAND --help tells the rest; more: docs/serving/bench.md
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands; the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv and argv[0] in COMMANDS:
        run: Callable[[Sequence[str]], int] = import_module(COMMANDS[argv[0]][0]).main
        return run(argv[1:])
    lines = "\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items())
    asked = bool(argv) and argv[0] in ("-h", "--help")
    if argv and not asked:
        print(f"error: there is no command {argv[0]!r}", file=sys.stderr)
    print(HELP.format(commands=lines), file=sys.stdout if asked else sys.stderr, end="")
    return 0 if asked else USAGE


if __name__ == "__main__":
    sys.exit(main())
