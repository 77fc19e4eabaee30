"""Keys, facts about the server, and the standard services beside ours."""

import asyncio
from unittest.mock import patch

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from engine.core_signs import SignsOfLife
from engine.server.grpc import start_grpc
from engine.server.grpc.schema import SERVICE
from engine.server.settings import ServerSettings
from tests.engine.server.grpc.harness import Session, refused, run, schema_of_client
from workbench.errors import ConfigError

KEYS = ServerSettings(api_keys=("s3cret", "other"))


def bearer(key: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {key}"),)


def test_only_who_has_a_key_gets_in() -> None:
    async def body(session: Session) -> None:
        schema, stub = session.schema, session.stub
        calls = {
            stub.Generate: schema.GenerateRequest(text="a", sampling_params={"max_tokens": 1}),
            stub.Abort: schema.AbortRequest(request_id="x"),
            stub.ModelInfo: schema.ModelInfoRequest(),
        }
        for call, request in calls.items():
            for metadata in (None, bearer("wrong"), bearer(""), (("authorization", "s3cret"),)):
                code, details = await refused(call(request, metadata=metadata))
                assert code == "UNAUTHENTICATED"
                assert "s3cret" not in details
        for key in KEYS.api_keys:
            await stub.ModelInfo(schema.ModelInfoRequest(), metadata=bearer(key))

    run(body, KEYS)


def test_model_info_tells_names_and_limits() -> None:
    async def body(session: Session) -> None:
        info = await session.stub.ModelInfo(session.schema.ModelInfoRequest())
        assert list(info.model_names) == ["tiny", "alias"]
        assert (info.world, info.vocab_size, info.max_model_len) == ("engine", 259, 2048)
        assert (info.num_kv_blocks, info.block_size) == (2048, 16)
        assert info.has_tokenizer

    run(body, ServerSettings(served_model_names=("tiny", "alias")))


def test_health_follows_the_engine() -> None:
    async def body(session: Session) -> None:
        stub = health_pb2_grpc.HealthStub(session.channel)
        states = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert (await stub.Check(request)).status == states.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == states.SERVING
        with patch("engine.server.grpc.server.POLL_S", 0.01):
            session.llm.kill_core()
            assert (await watch.read()).status == states.NOT_SERVING
            await session.llm.restart()
            assert (await watch.read()).status == states.SERVING
            session.state.is_draining = True
            assert (await watch.read()).status == states.NOT_SERVING
        watch.cancel()

    run(body, KEYS)


def test_health_says_that_the_server_stops() -> None:
    async def body(session: Session) -> None:
        watch = health_pb2_grpc.HealthStub(session.channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        states = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == states.SERVING
        stopping = asyncio.create_task(session.server.stop(5.0))
        assert (await watch.read()).status == states.NOT_SERVING
        watch.cancel()
        await stopping

    run(body)


def test_reflection_describes_all_services() -> None:
    async def body(session: Session) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(session.channel)
        ask = reflection_pb2.ServerReflectionRequest
        questions = [
            ask(list_services=""),
            ask(file_containing_symbol=SERVICE),
            ask(file_containing_symbol="grpc.health.v1.Health"),
        ]
        answers = [each async for each in stub.ServerReflectionInfo(iter(questions))]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        for answer in answers[1:]:
            assert answer.file_descriptor_response.file_descriptor_proto

    run(body, KEYS)


def test_a_prompt_longer_than_the_limit_is_refused_by_its_size() -> None:
    async def body(session: Session) -> None:
        request = session.schema.GenerateRequest(text="a" * 20_000)
        assert (await refused(session.stub.Generate(request)))[0] == "RESOURCE_EXHAUSTED"

    run(body, ServerSettings(max_body_bytes=10_000))


def test_a_blocking_client_works_too() -> None:
    async def body(session: Session) -> None:
        def ask() -> str:
            schema = schema_of_client()
            with grpc.insecure_channel(f"127.0.0.1:{session.server.port}") as channel:
                request = schema.GenerateRequest(text="abc", sampling_params={"max_tokens": 3})
                (response,) = schema.stub(channel).Generate(request)
                return str(response.answers[0].text)

        assert await asyncio.to_thread(ask) == "abc"

    run(body)


def test_a_taken_port_is_refused_in_one_line() -> None:
    async def body(session: Session) -> None:
        taken = session.server.port
        with pytest.raises(ConfigError, match=f"grpc_port={taken} cannot be listened on"):
            await start_grpc(session.llm, ServerSettings(), taken)

    run(body)


def test_unknown_names_of_the_schema_are_attribute_errors() -> None:
    schema = schema_of_client()
    with pytest.raises(AttributeError, match="no message Nothing"):
        _ = schema.Nothing
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        stub = schema.stub(channel)
        with pytest.raises(AttributeError, match="no method Nothing"):
            _ = stub.Nothing


def test_health_knows_a_silent_engine() -> None:
    async def body(session: Session) -> None:
        watch = health_pb2_grpc.HealthStub(session.channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        states = health_pb2.HealthCheckResponse
        assert (await watch.read()).status == states.SERVING
        with (
            patch("engine.server.grpc.server.POLL_S", 0.01),
            patch.object(SignsOfLife, "silence_s", 5.5),
        ):
            assert (await watch.read()).status == states.NOT_SERVING
            with patch.object(SignsOfLife, "silence_s", 4.5):
                assert (await watch.read()).status == states.SERVING
                # a step that takes longer than it may
                with patch.object(SignsOfLife, "stall_s", 300.5):
                    assert (await watch.read()).status == states.NOT_SERVING
        watch.cancel()

    run(body, ServerSettings(max_core_silence=5.0))
