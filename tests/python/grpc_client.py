"""A gRPC client that knows only an address: python grpc_client.py host:port

Finds services and messages by reflection, then lists models, reads the status and generates a text.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)
services = set(database.get_services())
assert {"swarm.v1.InferenceService", "swarm.v1.SwarmService", "grpc.health.v1.Health"} <= services, services
assert "swarm.v1.ShardService" not in services, "activations are for peers only"


def call(service, method, request, channel=channel):
    found = pool.FindServiceByName(service).methods_by_name[method]
    answer = message_factory.GetMessageClass(found.output_type)
    path = f"/{service}/{method}"
    kind = channel.unary_stream if found.server_streaming else channel.unary_unary
    made = kind(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
    return made(message_factory.GetMessageClass(found.input_type)(**request), timeout=60)


health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
assert health.status == health_pb2.HealthCheckResponse.SERVING
status = call("swarm.v1.SwarmService", "GetStatus", {})
assert status.swarm_ready and len(status.shards) == status.total_shards == 8
watched = call("swarm.v1.SwarmService", "WatchStatus", {})
assert next(watched).swarm_ready
watched.cancel()
models = call("swarm.v1.InferenceService", "ListModels", {}).models
assert len(models) == 1 and models[0].ready

question = {
    "chat": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    "sampling": {"temperature": 0},
    "max_tokens": 24,
}
text, ids, finished = "", [], None
for event in call("swarm.v1.InferenceService", "Generate", question):
    text += event.chunk.text
    ids += [token.id for token in event.chunk.tokens]
    finished = event.finished if event.HasField("finished") else finished
assert "Paris" in text, text
assert finished.completion_tokens >= len(ids) > 0 and finished.finish_reason in ("stop", "length")
try:
    list(call("swarm.v1.InferenceService", "Generate", {"prompt": "x", "sampling": {"temperature": 9}}))
    raise SystemExit("temperature 9 was served")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "temperature" in error.details(), error
held = {**question, "grammar": {"regex": "(red|blue)"}}
said = "".join(event.chunk.text for event in call("swarm.v1.InferenceService", "Generate", held))
assert said in ("red", "blue"), said
try:
    list(call("swarm.v1.InferenceService", "Generate", {**question, "grammar": {"json_schema": "{"}}))
    raise SystemExit("a broken schema was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and error.details().startswith("grammar: "), error

# Whoever packs messages is understood, and nothing large hides in a small one.
with grpc.insecure_channel(sys.argv[1], compression=grpc.Compression.Gzip) as packed:
    events = call("swarm.v1.InferenceService", "Generate", question, packed)
    assert "".join(event.chunk.text for event in events) == text
    try:
        list(call("swarm.v1.InferenceService", "Generate", {"prompt": "x" * (6 << 20)}, packed))
        raise SystemExit("6 MiB were unpacked")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.OUT_OF_RANGE, error
try:
    channel.unary_unary("/swarm.v1.NoService/Ask")(b"", timeout=10)
    raise SystemExit("there is no such service")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED and "/swarm.v1.NoService/Ask" in error.details(), error
print("ok:", text)
