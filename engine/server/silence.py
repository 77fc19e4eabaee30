"""How long an engine core has been silent, as an operator understands it.

A process that does not run is silent. So is one whose loop does not get on: a step may take its
time, and one that takes more than any should is silence from its beginning. Knows both; what is
done about it, others know.
"""

from dataclasses import dataclass

from engine.async_llm import AsyncLLM


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence of an engine core.

    Attributes:
        seconds: How long it lasts.
        what: What can be seen of it, in words.
        cure: What an operator may do.
    """

    seconds: float
    what: str
    cure: str

    def is_longer(self, limit_s: float) -> bool:
        """Whether it breaks a limit; 0 is none."""
        return 0.0 < limit_s < self.seconds


def silence_of(llm: AsyncLLM, max_step_time: float) -> Silence:
    """The longer one of the two silences.

    Args:
        llm: The engine.
        max_step_time: Seconds that a step may take; 0: any. A simulation that is slower than time
            may take as much longer.
    """
    signs = llm.signs
    process_s, step_s = signs.silence_s, signs.stall_s
    allowed_s = max_step_time / min(llm.info.speed, 1.0)
    if process_s >= step_s or not 0.0 < allowed_s < step_s:
        return Silence(
            process_s,
            f"the engine core's process {llm.info.pid} has given no sign of life for "
            f"{process_s:.1f} s",
            "it is stopped or hangs; let it go on (SIGCONT), or kill it",
        )
    return Silence(
        step_s,
        f"the loop of the engine core's process {llm.info.pid} has not got on for {step_s:.1f} s, "
        f"and a step may take {allowed_s:g} s",
        "it hangs; kill it, or allow longer steps with --max-step-time",
    )
