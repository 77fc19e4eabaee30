"""The same engine over gRPC: what is served, whether it is well, and a stream of an answer.

    pip install -e '.[serve,grpc]'
    workbench serve demo --grpc-port 50051
    python examples/grpc_client.py

Without this project's code, grpc_tools.protoc makes a client from
engine/server/grpc/workbench.proto, and tools that know reflection need no file at all.
"""

import argparse

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.server.grpc.schema import load_schema


def main() -> None:
    parser = argparse.ArgumentParser(description="A stream over gRPC.")
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--api-key", default=None)
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()

    schema = load_schema()
    metadata = [("authorization", f"Bearer {options.api_key}")] if options.api_key else []
    with grpc.insecure_channel(options.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        print(f"health: {health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)}")

        stub = schema.stub(channel)
        info = stub.ModelInfo(schema.ModelInfoRequest(), metadata=metadata)
        print(f"model: {info.model_names[0]}, at most {info.max_model_len} tokens")

        request = schema.GenerateRequest(
            text=options.prompt, sampling_params={"max_tokens": 32, "seed": 0}, stream=True
        )
        for response in stub.Generate(request, metadata=metadata, timeout=60):
            for answer in response.answers:
                print(answer.text, end="", flush=True)
            if response.HasField("usage"):
                print(f"\n{response.usage.completion_tokens} tokens")


if __name__ == "__main__":
    main()
