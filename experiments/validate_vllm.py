"""Serves a workload on a real vLLM and in the simulator, and says how far they are apart.

    python -m experiments.validate_vllm vllm.python=PYTHON hydra.run.dir=OUT
    python -m experiments.validate_vllm vllm.url=http://HOST:PORT vllm.steps=FILE …
    python -m experiments.validate_vllm vllm.recorded=EARLIER/recording.jsonl hydra.run.dir=OUT

PYTHON is one of an environment with vLLM, in which a small random model is started; or a server
runs already, with the recorder of its steps in it. The server is calibrated on designed runs, then
gets the workload at three loads; the simulator repeats them. OUT/recording.jsonl has all that was
seen, and can be simulated again, with newer code, wherever there is no vLLM. Settings of the
server: `vllm.NAME` (experiments/live_vllm/settings.py); of the workload: as in a run, `workload=…
workload.NAME=…`.
"""

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.settings import VllmSettings
from experiments.own_settings import part_command_line, read_value
from experiments.program import run_program
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from experiments.live_vllm.session import Session

WORKLOAD = "workload=live_vllm"
DONE = "report.html"  # what a finished validation leaves last
AGAIN = ("vllm.draws", "progress", "hydra.run.dir")  # what may be given beside a recording


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status: 0 where everything ran, whatever the errors are."""
    with _stopped_by_termination():
        return run_program(
            arguments,
            __doc__,
            _validate,
            on_interrupt="interrupted: the server was stopped",
            setting_names=_setting_names,
            failures=(ServerError,),
        )


def _setting_names() -> list[str]:
    from experiments.run import setting_names

    return setting_names()


def _validate(argv: Sequence[str]) -> int:
    from experiments.assemble import part
    from experiments.run import compose_config
    from experiments.schema import run_settings

    words = _with_recorded(argv)
    settings, folder, overrides = part_command_line(words, "vllm", VllmSettings)
    config = compose_config([WORKLOAD, *overrides])
    run_settings(config)
    workload = part(config, "workload")
    folder.mkdir(parents=True, exist_ok=True)
    with _session(settings, folder) as (session, log):
        from experiments.live_vllm.recording import FILE
        from experiments.live_vllm.validation import Validation, machine_of_now

        if session.recording is None:
            session.record_into(folder / FILE, [*settings.words(), *overrides], machine_of_now())
        elif (folder / FILE).exists():
            raise ConfigError(
                f"hydra.run.dir={folder} has a recording of its own, whose results would be lost:"
                " choose another folder"
            )
        (folder / DONE).unlink(missing_ok=True)
        validation = Validation(settings, workload, folder, config.seed, config.progress)
        command = shlex.join(["python", "-m", "experiments.validate_vllm", *argv])
        is_met = validation.run(session, log, command)
    print("all goals are met" if is_met else "not all goals are met: report.html says which")
    print(f"Everything is in {folder}")
    return 0


@contextmanager
def _stopped_by_termination() -> Iterator[None]:
    """SIGTERM ends the program as an interrupt does, so that the server does not outlive it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_recorded(argv: Sequence[str]) -> list[str]:
    """What was typed; where a recording is simulated again, after what was typed for that."""
    given = dict(word.partition("=")[::2] for word in argv)
    if "vllm.recorded" not in given:
        return list(argv)
    from experiments.live_vllm.recording import read_head

    fixed = [word for word in argv if word.partition("=")[0] not in ("vllm.recorded", *AGAIN)]
    if fixed:
        raise ConfigError(
            f"{fixed[0]} is what the recording has it to be: beside vllm.recorded give only"
            f" {', '.join(AGAIN)}"
        )
    place = given["vllm.recorded"]
    words = read_head(Path(str(read_value(f"vllm.recorded={place}", place)))).words
    return [*(word for word in words if word.partition("=")[0] not in given), *argv]


@contextmanager
def _session(settings: VllmSettings, folder: Path) -> Iterator[tuple["Session", Path | None]]:
    """A server to talk to, and its log where it is known; one that was started here is stopped."""
    from experiments.live_vllm.recorded_session import RecordedSession
    from experiments.live_vllm.server import VllmServer
    from experiments.live_vllm.session import LiveSession

    name, timeout_s = settings.served_model_name, settings.request_timeout_s
    if settings.recorded is not None:
        yield RecordedSession(Path(settings.recorded)), None
    elif settings.url is not None:
        place = settings.url, Path(settings.steps or "")
        # it has run before, and must not know the prompts
        salt = time.time_ns() % 2**32
        yield LiveSession(*place, name, timeout_s, from_start=False, salt=salt), None
    else:
        print("starting vLLM", flush=True)
        with VllmServer(settings.launch(folder), folder) as server:
            session = LiveSession(
                server.url,
                server.record,
                name,
                timeout_s,
                why_dead=server.last_lines,
                cpu_s=server.cpu_s,
            )
            yield session, server.log


if __name__ == "__main__":
    sys.exit(main())
