"""Starts a dead engine core again, as often as it may, and ends one that is silent for too long.

Knows when a core is gone; why, the engine says.
"""

import asyncio
import logging

from engine.async_llm import AsyncLLM
from engine.server.settings import ServerSettings
from engine.server.silence import silence_of
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


async def kill_silent(llm: AsyncLLM, settings: ServerSettings) -> None:
    """Kill an engine core whenever it is silent for too long; runs until it is cancelled.

    It must be so at two looks: after a pause of the whole machine or container, the first one sees
    a core that had no chance to give a sign.

    Args:
        llm: The engine; who starts its core again is another's affair.
        settings: restart_silence, above 0, and max_step_time.
    """
    pause = min(settings.restart_silence / 4, LOOK_S)
    was_silent = False
    while True:
        await asyncio.sleep(pause)
        silence = silence_of(llm, settings.max_step_time)
        is_silent = silence.is_longer(settings.restart_silence)
        if is_silent and was_silent:
            logger.error("%s: it is killed", silence.what)
            llm.kill_core()
            await llm.wait_dead()
            is_silent = False
        was_silent = is_silent
