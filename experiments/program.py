"""How a command that composes no single run begins and ends: its help, one line for what is wrong.

Knows exit statuses and how errors are told. It does not know what a command does.
"""

import sys
from collections.abc import Callable, Sequence

from experiments.explain import explain, is_expected

FAILED, USAGE, INTERRUPTED = 1, 2, 130
HELP = ("-h", "--help")


def run_program(
    arguments: Sequence[str] | None,
    text: str | None,
    work: Callable[[list[str]], int],
    *,
    on_interrupt: str = "interrupted",
    setting_names: Callable[[], Sequence[str]] = list,
    failures: tuple[type[Exception], ...] = (),
) -> int:
    """Does the work with the words of a command line; the exit status.

    Args:
        arguments: The words; None: the program's own.
        text: The help.
        work: Takes the words, returns the exit status.
        on_interrupt: What is said after Ctrl-C.
        setting_names: Names that a misspelt one may have meant.
        failures: Errors that are no wrong usage: the status is 1 instead of 2.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in HELP for word in argv):
        print(text)
        return 0
    try:
        return work(argv)
    except KeyboardInterrupt:
        print(on_interrupt, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"error: {explain(error, argv, setting_names())}", file=sys.stderr)
        return FAILED if isinstance(error, failures) else USAGE
