"""A receiver of traces that is not ours takes OTLP over gRPC and forwards it, OpenTelemetry's own classes read it.

    traces.py              rotel, from its Python package
    traces.py OTELCOL      the OpenTelemetry Collector, with docker/otel-collector.yaml

Prints the endpoint, then a JSON object for every span, one a line, until standard input ends.
"""

import gzip
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

START_WITHIN_S = 30
COLLECTOR_CONFIG = pathlib.Path(__file__).parents[2] / "docker/otel-collector.yaml"
printing = threading.Lock()


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in any_value.array_value.values]
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    keys = [pair.key for pair in pairs]
    assert len(keys) == len(set(keys)), f"an attribute comes twice: {keys}"
    return {pair.key: value(pair.value) for pair in pairs}


def told(span, resource):
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "message": span.status.message,
        "attributes": attributes(span.attributes),
        "events": [
            {"name": event.name, "time_ns": event.time_unix_nano, "attributes": attributes(event.attributes)}
            for event in span.events
        ],
        "resource": resource,
    }


class Sink(BaseHTTPRequestHandler):
    """Where the receiver forwards to."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = attributes(of_process.resource.attributes)
            for scope in of_process.scope_spans:
                for span in scope.spans:
                    with printing:
                        print(json.dumps(told(span, resource)), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(process, port):
    since = time.monotonic()
    while time.monotonic() - since < START_WITHIN_S:
        if process.poll() is not None:
            raise SystemExit(f"the receiver ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("the receiver does not open its port")


def rotel_command(grpc, sink, folder):
    import rotel

    agent = pathlib.Path(rotel.__file__).with_name("rotel-agent")
    command = [agent, "start", "--pid-file", f"{folder}/pid", "--log-file", f"{folder}/log"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", "127.0.0.1:0"]
    command += ["--exporter", "otlp", "--otlp-exporter-protocol", "http"]
    return [*command, "--otlp-exporter-endpoint", f"http://127.0.0.1:{sink}", "--disable-batching"]


def collector_command(otelcol, grpc, sink):
    """Our configuration, at a port of its own, with one exporter more and without the Collector's metrics port."""
    changes = {
        "receivers::otlp::protocols::grpc::endpoint": f"127.0.0.1:{grpc}",
        "exporters::otlphttp::endpoint": f"http://127.0.0.1:{sink}",
        "service::pipelines::traces::exporters": "[debug, otlphttp]",
        "service::telemetry::metrics::level": "none",
    }
    configs = [str(COLLECTOR_CONFIG), *(f"yaml:{key}: {changed}" for key, changed in changes.items())]
    return [otelcol, *(f"--config={config}" for config in configs)]


def main():
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    grpc = free_port()
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/said", "w+") as said:
        if len(sys.argv) > 1:
            command = collector_command(sys.argv[1], grpc, sink.server_port)
        else:
            command = rotel_command(grpc, sink.server_port, folder)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            await_port(process, grpc)
            print(f"http://127.0.0.1:{grpc}", flush=True)
            sys.stdin.read()
        except SystemExit:
            said.seek(0)
            print(said.read(), file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()


main()
