"""A gRPC client that needs no `.proto` files: it learns the messages from the gateway by reflection.

    pip install -r requirements.txt
    python generate.py 127.0.0.1:50050 "The sky is"
"""

import os
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase



class ShowKey(grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Shows the key with every call, those of reflection included."""

    def intercept_unary_stream(self, call, details, request):
        key = [("authorization", f"Bearer {os.environ.get('LLAMA_SWARM_API_KEY', 'none')}")]
        return call(details._replace(metadata=[*(details.metadata or ()), *key]), request)

    intercept_stream_stream = intercept_unary_stream


address, prompt = sys.argv[1:3]
channel = grpc.intercept_channel(grpc.insecure_channel(address), ShowKey())
pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
method = pool.FindMethodByName("swarm.v1.InferenceService.Generate")
Request = message_factory.GetMessageClass(method.input_type)
Response = message_factory.GetMessageClass(method.output_type)
generate = channel.unary_stream(
    "/swarm.v1.InferenceService/Generate",
    request_serializer=Request.SerializeToString,
    response_deserializer=Response.FromString,
)

# Plain text is continued; `chat` instead of `prompt` would go through the model's chat template.
request = Request(prompt=prompt, sampling={"temperature": 0}, max_tokens=16)
slowest = 0
print(prompt, end="")
for response in generate(request, timeout=60):
    print(response.chunk.text, end="", flush=True)
    # Every token tells how long it took, and how much of that each worker computed.
    for token in response.chunk.tokens:
        slowest = max([slowest, *(hop.compute_us for hop in token.hops)])
    if response.HasField("finished"):
        print(f"\n{response.finished.completion_tokens} tokens, ended by {response.finished.finish_reason}")
print(f"the longest a worker computed: {slowest / 1000:.1f} ms")
