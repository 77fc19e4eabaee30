"""Deaths, starts and ends of the core under an AsyncLLM."""

import asyncio

import pytest

from engine.async_llm import AsyncLLM
from engine.errors import EngineDeadError, ModelLoadError
from engine.served_core import CoreSpec
from tests.engine.served import FACTORY, run, served_llm
from tests.engine.streams import (
    ask,
    check_clean,
    collect,
    joined,
    until,
)
from workbench.errors import ConfigError


def test_a_dead_core_fails_every_stream_and_a_new_one_serves() -> None:
    async def body(llm: AsyncLLM) -> None:
        tasks = [
            asyncio.create_task(collect(llm.generate("x", ask(1900), str(number))))
            for number in range(100)
        ]
        await until(lambda: llm.num_unfinished_requests == 100)
        llm.kill_core()
        assert "died (killed)" in await llm.wait_dead()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {EngineDeadError}
        assert not llm.is_alive
        for refused in (llm.prepare("r", "x"), llm.check_health(), llm.call("block_usage")):
            with pytest.raises(EngineDeadError, match="killed"):
                await refused
        await llm.restart()
        await llm.check_health()
        assert joined(await collect(llm.generate("x", ask(5), "0")))[0] == "xxxxx"
        await check_clean(llm)

    run(body, step_s=0.001)


def test_a_step_that_breaks_off_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def body(llm: AsyncLLM) -> None:
        with pytest.raises(EngineDeadError, match="RuntimeError: the device fell off the bus"):
            await collect(llm.generate("x", ask(9), "r"))
        assert "the device fell off the bus" in (llm.why_dead or "")

    run(body, script="fail_third")
    assert "the core cannot go on" in caplog.text


def test_a_core_that_serves_may_be_started_again_once_for_all_who_ask() -> None:
    async def body(llm: AsyncLLM) -> None:
        stream = llm.generate("x", ask(1900), "r")
        await anext(stream)
        await asyncio.gather(llm.restart(), llm.restart(), llm.restart())
        with pytest.raises(EngineDeadError, match="started again"):
            await collect(stream)
        assert llm.is_alive
        assert joined(await collect(llm.generate("x", ask(2), "r")))[0] == "xx"

    run(body, step_s=0.001)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModelLoadError("no weights: fetch them"), ModelLoadError, "^no weights: fetch them$"),
        (ConfigError("x=1 is odd"), ConfigError, "^x=1 is odd$"),
        (KeyError("zap"), EngineDeadError, "could not start: KeyError: 'zap'"),
    ],
)
def test_an_error_of_the_factory_is_raised_by_start(
    error: Exception, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def start() -> None:
        await AsyncLLM.start(CoreSpec(FACTORY, {"fails": error}), in_thread=True)

    with pytest.raises(kind, match=message):
        asyncio.run(start())


@pytest.mark.parametrize("factory", ["nowhere:x", "engine.served_core:x", "engine"])
def test_a_factory_that_is_not_there_is_named(factory: str) -> None:
    with pytest.raises(ConfigError, match=f"factory='{factory}' cannot be found"):
        asyncio.run(AsyncLLM.start(CoreSpec(factory), in_thread=True))


def test_a_shutdown_drains_and_then_aborts() -> None:
    async def body() -> None:
        async with served_llm(step_s=0.002) as llm:
            short = asyncio.create_task(collect(llm.generate("ab", ask(20), "short")))
            long = asyncio.create_task(collect(llm.generate("ab", ask(1900), "long")))
            await until(lambda: llm.num_unfinished_requests == 2)
            await llm.shutdown(drain=0.5)
            assert (await short)[-1].outputs[0].finish_reason == "length"
            assert (await long)[-1].outputs[0].finish_reason == "abort"
            with pytest.raises(EngineDeadError, match="was shut down"):
                await llm.prepare("r", "x")
            with pytest.raises(EngineDeadError, match="was shut down"):
                await llm.restart()
            with pytest.raises(EngineDeadError, match="was shut down"):
                await llm.tokenize("x")
            assert "shut down" in await llm.wait_dead()
            await llm.shutdown()

    asyncio.run(asyncio.wait_for(body(), 60))
