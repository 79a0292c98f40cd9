"""A gateway that serves the real page and tells it of any swarm, for what a real swarm shows only for a moment."""

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


# The name of its model in the API.
MODEL = "fake-model"


def replica(worker, shard):
    """A loaded replica, as `/v1/swarm` tells it."""
    model = {"name": "fake", "digest": "00" * 32, "precision": "exact"}
    return {
        "worker": worker, "state": "LOADED", "loaded_percent": 100, "local": False, "addresses": [], "transport": "QUIC",
        "model": model, "layers": {"start": shard, "end": shard + 1}, "device": "cpu", "version": "0", "grpc_address": "",
        "active_sessions": 0,
    }  # fmt: skip


def status(shards):
    """The status of these shards: a list of replicas for each."""
    online = sum(any(r["state"] != "OFFLINE" for r in replicas) for replicas in shards)
    return {
        "cluster": "fake", "node": "gateway", "total_shards": len(shards), "discovered_shards": online,
        "pipeline_complete": online == len(shards), "swarm_ready": False, "model": None, "revision": 1,
        "shards": [{"shard_id": n, "replicas": replicas} for n, replicas in enumerate(shards)],
    }  # fmt: skip


PATH = {"token_id": 1, "round_trip_us": 9000, "hops": [{"queue_us": 100, "compute_us": 500, "batch_rows": 1}] * 8}


class FakeGateway:
    """Serves on one port, over stops and starts."""

    def __init__(self, real_url):
        with urllib.request.urlopen(real_url + "/") as answer:
            self.page = answer.read()
            self.headers = {name: answer.headers[name] for name in ("content-type", "content-security-policy")}
        self.port = 0
        self.silent = False
        self.status = None
        # Who does not show it is refused, if there is one.
        self.key = None
        # All are refused with these words, while there are some.
        self.waits = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def tell(self, status):
        self.status = json.dumps(status)

    def start(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def refuses(self):
                error = {"message": "the API key is not one of this gateway's", "code": "invalid_api_key"}
                if fake.waits:
                    error = {"message": fake.waits, "code": "swarm_not_ready"}
                elif not fake.key or self.headers["authorization"] == f"Bearer {fake.key}":
                    return False
                self.send_response(503 if fake.waits else 401)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps({"error": error}).encode())
                return True

            def do_GET(self):
                if self.path != "/" and self.refuses():
                    return
                self.send_response(200)
                if self.path == "/v1/models":
                    self.send_header("content-type", "application/json")
                    self.end_headers()
                    self.wfile.write(json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode())
                elif self.path == "/":
                    for name, value in fake.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(fake.page)
                else:
                    self.send_header("content-type", "text/event-stream")
                    self.end_headers()
                    fake._events(self.wfile)

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.refuses():
                    return
                assert asked["stream"] and asked["path_times"], asked
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                fake._answer(self.wfile, asked["messages"][-1]["content"])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"
        self.running = threading.Event()
        self.running.set()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.running.clear()
        self.server.shutdown()
        self.server.server_close()

    def fall_silent(self):
        self.silent = True

    def speak(self):
        self.silent = False

    def _events(self, out):
        told, running = None, self.running
        try:
            while running.is_set():
                if not self.silent:
                    if told is not self.status:
                        told = self.status
                        out.write(f"event: status\ndata: {told}\n\n".encode())
                    out.write(b'event: load\ndata: {"tokens_per_second": 7.5, "generations": 1}\n\n')
                    out.flush()
                time.sleep(0.05)
        except OSError:
            pass

    def _answer(self, out, question):
        running = self.running

        def event(data):
            out.write(f"data: {json.dumps(data)}\n\n".encode())
            out.flush()

        try:
            for text in ("Code:\n```\n", "a < b") if question == "code that goes on" else ("token ", ""):
                event({"choices": [{"delta": {"content": text}}], "path_times": [PATH]})
            if question == "breaks off":
                event({"error": {"message": "worker gone", "code": "hop_failed"}})
                return
            while running.is_set():
                time.sleep(0.05)
        except OSError:
            pass
