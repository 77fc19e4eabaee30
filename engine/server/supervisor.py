"""Starts a dead engine core again, as often as it may, and ends one that is silent for too long.

Knows when a core is gone; why, the engine says.
"""

import asyncio
import logging

from engine.async_llm import AsyncLLM
from workbench.errors import WorkbenchError

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
LOOK_S = 1.0
"""Longest time between two looks at a core."""


async def supervise(llm: AsyncLLM, max_restarts: int, first_pause: float = 0.1) -> None:
    """Watch an engine until its core may not be started again.

    Args:
        llm: The engine.
        max_restarts: Starts, those that fail included.
        first_pause: Seconds before the first start; each further pause is twice as long.
    """
    pause = min(first_pause, LONGEST_PAUSE_S)
    for attempt in range(max_restarts):
        reason = await llm.wait_dead()
        logger.error(
            "the engine core is gone (%s): start %d of at most %d",
            reason,
            attempt + 1,
            max_restarts,
        )
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
        try:
            await llm.restart()
        except Exception as error:
            # whatever its factory raises: the server goes on and says so
            told = str(error) if isinstance(error, WorkbenchError) else repr(error)
            logger.error("the engine core could not be started: %s", told)
        else:
            logger.info("the engine core serves again")
    reason = await llm.wait_dead()
    logger.error(
        "the engine core is gone (%s) and is not started again: every request gets 503", reason
    )


async def kill_silent(llm: AsyncLLM, longest_s: float) -> None:
    """Kill an engine core whenever its process gives no sign of life; runs until it is cancelled.

    Args:
        llm: The engine; who starts its core again is another's affair.
        longest_s: Seconds of silence, above 0.
    """
    while True:
        await asyncio.sleep(min(longest_s / 4, LOOK_S))
        if llm.silence_s > longest_s:
            logger.error(
                "the engine core's process has given no sign of life for %.1f s and is killed",
                llm.silence_s,
            )
            llm.kill_core()
            await llm.wait_dead()
