"""Runs every grpcurl line of docs/grpc.md against a gateway: python grpc_docs.py host:port docs/grpc.md

Each line is run by a generic client that knows only the address, and, where grpcurl is on the PATH, by grpcurl too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

DOCUMENTED = "127.0.0.1:50050"
# Streams that never end by themselves are left after their first answer.
ENDLESS = {"WatchStatus", "Watch"}
# What the page's example names is there for nobody.
REFUSED = {"Forget": grpc.StatusCode.NOT_FOUND}

address, page = sys.argv[1], open(sys.argv[2], encoding="utf-8").read()
blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
lines = [line for block in blocks for line in block.splitlines() if line.startswith("grpcurl ")]
assert len(lines) >= 10, f"only {len(lines)} grpcurl lines"

channel = grpc.insecure_channel(address)
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)


def call(path, data):
    """The answers of one call as JSON objects, the first only of a stream without end."""
    service, name = path.split("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    request = json_format.ParseDict(data, message_factory.GetMessageClass(method.input_type)())
    answer = message_factory.GetMessageClass(method.output_type)
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    made = kind(f"/{path}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)
    if not method.server_streaming:
        return [json_format.MessageToDict(made(request, timeout=60))]
    stream = made(request, timeout=60)
    if name in ENDLESS:
        first = next(stream)
        stream.cancel()
        return [json_format.MessageToDict(first)]
    return [json_format.MessageToDict(message) for message in stream]


def check(path, answers):
    """Each answer says what its section of the page promises."""
    assert answers, path
    name = path.split("/")[1]
    if name == "Generate":
        assert any(answer.get("chunk", {}).get("tokens") for answer in answers), answers
        assert answers[-1]["finished"]["finishReason"] in ("stop", "length"), answers[-1]
    elif name in ("GetStatus", "WatchStatus"):
        assert answers[0]["swarmReady"] and len(answers[0]["shards"]) == answers[0]["totalShards"], answers[0]
    elif name == "ListModels":
        assert answers[0]["models"][0]["ready"], answers[0]
    elif name in ("Check", "Watch"):
        assert answers[0]["status"] == "SERVING", answers[0]
    else:
        raise AssertionError(f"nothing is known of {path}")


called = set()
for line in lines:
    words = shlex.split(line)
    assert DOCUMENTED in words, line
    target = words[words.index(DOCUMENTED) + 1 :]
    if target[0] == "list":
        services = set(database.get_services())
        assert "swarm.v1.InferenceService" in services and "swarm.v1.ShardService" not in services, services
    elif target[0] == "describe":
        assert pool.FindServiceByName(target[1]).methods
    else:
        data = json.loads(words[words.index("-d") + 1]) if "-d" in words else {}
        refused = REFUSED.get(target[0].split("/")[1])
        try:
            check(target[0], call(target[0], data))
            assert not refused, f"{target[0]} is not refused"
        except grpc.RpcError as error:
            if error.code() != refused:
                raise
        called.add(target[0])

ours = {"swarm.v1.InferenceService", "swarm.v1.SwarmService"}
methods = {f"{service}/{m.name}" for service in ours for m in pool.FindServiceByName(service).methods}
assert methods <= called, f"not on the page: {methods - called}"

grpcurl = shutil.which("grpcurl") or shutil.which("grpcurl", path=os.path.dirname(sys.executable))
for line in lines if grpcurl else []:
    words = [address if word == DOCUMENTED else word for word in shlex.split(line)]
    run = subprocess.run([grpcurl, *words[1:]], capture_output=True, text=True, timeout=90)
    # A watch ends by its own time limit, which grpcurl calls an error.
    ended_by_limit = "-max-time" in words and "DeadlineExceeded" in run.stderr
    if any(line.endswith(f"/{name}") for name in REFUSED):
        assert "NotFound" in run.stderr, (line, run.stderr)
        continue
    assert run.returncode == 0 or ended_by_limit, (line, run.stderr)
    assert run.stdout.strip(), line
print(f"ok: {len(lines)} lines" + (", by grpcurl too" if grpcurl else ", grpcurl is not on the PATH"))
