"""The messages and methods of workbench.proto, compiled when they are asked for.

No generated code is kept: protoc turns the .proto into a descriptor set in a temporary folder, and
the message classes are made from that. Clients in Python can use this file too. Knows no server.
"""

from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.server.grpc import EXTRA
from workbench.errors import ConfigError

PROTO = "workbench.proto"
SERVICE = "workbench.v1.Workbench"


class Schema:
    """The messages by their names, as in `schema.GenerateRequest(text="Hello")`.

    Attributes:
        pool: Descriptors of workbench.proto and of the standard health service.
        service: Descriptor of the service.
    """

    def __init__(self, descriptor_set: bytes) -> None:
        from google.protobuf import descriptor_pb2, descriptor_pool
        from grpc_health.v1 import health_pb2
        from grpc_reflection.v1alpha import reflection_pb2

        self.pool = descriptor_pool.DescriptorPool()
        described = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        for file in described.file:
            self.pool.AddSerializedFile(file.SerializeToString())
        for standard in (health_pb2, reflection_pb2):
            self.pool.AddSerializedFile(standard.DESCRIPTOR.serialized_pb)
        self.service = self.pool.FindServiceByName(SERVICE)

    def __getattr__(self, name: str) -> Any:
        from google.protobuf import message_factory

        package = SERVICE.rpartition(".")[0]
        try:
            descriptor = self.__dict__["pool"].FindMessageTypeByName(f"{package}.{name}")
        except KeyError:
            raise AttributeError(f"{PROTO} has no message {name}") from None
        message_class = message_factory.GetMessageClass(descriptor)
        self.__dict__[name] = message_class
        return message_class

    def handlers(self, calls: Mapping[str, Callable[..., Any]]) -> Any:
        """What a server adds, from what answers each method of the service."""
        import grpc

        methods = {}
        for method in self.service.methods:
            make = (
                grpc.unary_stream_rpc_method_handler
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            request_class, response_class = self._classes(method)
            methods[method.name] = make(
                calls[method.name],
                request_deserializer=request_class.FromString,
                response_serializer=response_class.SerializeToString,
            )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def stub(self, channel: Any) -> "Stub":
        """A client on a channel, of grpc or grpc.aio: one attribute a method."""
        calls = {}
        for method in self.service.methods:
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            request_class, response_class = self._classes(method)
            calls[method.name] = make(
                f"/{SERVICE}/{method.name}",
                request_serializer=request_class.SerializeToString,
                response_deserializer=response_class.FromString,
            )
        return Stub(calls)

    def _classes(self, method: Any) -> tuple[Any, Any]:
        return getattr(self, method.input_type.name), getattr(self, method.output_type.name)


class Stub:
    """A client: one attribute a method of the service.

    Args:
        calls: The methods by name.
    """

    def __init__(self, calls: dict[str, Callable[..., Any]]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self._calls[name]
        except KeyError:
            raise AttributeError(f"{SERVICE} has no method {name}") from None


def load_schema() -> Schema:
    """Compile workbench.proto.

    Raises:
        ConfigError: The packages are missing, or protoc refuses the file.
    """
    try:
        from grpc_tools import protoc
    except ImportError as error:
        raise ConfigError(f"gRPC needs packages that are not here ({error}): {EXTRA}") from error
    with as_file(files(__package__) / PROTO) as source, TemporaryDirectory() as folder:
        target = Path(folder) / "descriptors"
        status = protoc.main(
            ["protoc", f"-I{source.parent}", f"--descriptor_set_out={target}", str(source)]
        )
        if status:
            raise ConfigError(f"protoc cannot compile {source}: restore it from the checkout")
        return Schema(target.read_bytes())
