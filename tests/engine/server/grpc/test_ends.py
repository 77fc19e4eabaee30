"""How calls end before their answer does: cancelled, too late, aborted, drained."""

import asyncio

import grpc
import pytest

from tests.engine.server.grpc.harness import Session, collect, refused, run, until

SLOW = {"step_s": 0.002}


def test_a_cancelled_call_gives_its_blocks_back() -> None:
    async def body(session: Session) -> None:
        call = session.stub.Generate(session.endless())
        await call.read()
        call.cancel()
        await session.until_all_is_free()

    run(body, **SLOW)


def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    async def body(session: Session) -> None:
        running = session.stub.Generate(session.endless())
        await running.read()
        waiting = session.stub.Generate(session.endless())
        await until(lambda: session.llm.num_unfinished_requests == 2)
        waiting.cancel()
        await until(lambda: session.llm.num_unfinished_requests == 1)
        running.cancel()
        await session.until_all_is_free()

    run(body, max_num_seqs=1, **SLOW)


def test_a_deadline_ends_the_request() -> None:
    async def body(session: Session) -> None:
        call = session.stub.Generate(session.endless(), timeout=0.2)
        code, _ = await refused(call)
        assert code == "DEADLINE_EXCEEDED"
        await session.until_all_is_free()

    run(body, **SLOW)


def test_abort_ends_a_request_by_its_id() -> None:
    async def body(session: Session) -> None:
        call = session.stub.Generate(session.endless(request_id="mine"))
        responses = aiter(call)
        seen = [await anext(responses)]
        abort = session.schema.AbortRequest(request_id="mine")
        await session.stub.Abort(abort)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await collect(responses, seen)
        assert error.value.code() is grpc.StatusCode.ABORTED
        assert seen[-1].answers[0].finish_reason == "abort"
        await session.until_all_is_free()
        code, details = await refused(session.stub.Abort(abort))
        assert code == "NOT_FOUND"
        assert "mine" in details

    run(body, **SLOW)


def test_stopping_lets_open_calls_end_and_refuses_new_ones() -> None:
    async def body(session: Session) -> None:
        request = session.schema.GenerateRequest(
            text="abc", stream=True, sampling_params={"max_tokens": 100}
        )
        responses = aiter(session.stub.Generate(request))
        first = await anext(responses)
        stopping = asyncio.create_task(session.server.stop(30.0))
        text = first.answers[0].text
        async for response in responses:
            text += response.answers[0].text
        assert text == ("abc" * 34)[:100]
        await stopping
        assert (await refused(session.stub.Generate(request)))[0] == "UNAVAILABLE"

    run(body, **SLOW)


def test_stopping_without_grace_cancels() -> None:
    async def body(session: Session) -> None:
        call = session.stub.Generate(session.endless())
        responses = aiter(call)
        await anext(responses)
        await session.server.stop(0.0)
        assert (await refused(call))[0] in ("UNAVAILABLE", "CANCELLED")
        await session.until_all_is_free()

    run(body, **SLOW)


def test_a_draining_server_takes_no_work() -> None:
    async def body(session: Session) -> None:
        session.state.is_draining = True
        code, details = await refused(session.stub.Generate(session.endless()))
        assert code == "UNAVAILABLE"
        assert "shutting down" in details

    run(body)
