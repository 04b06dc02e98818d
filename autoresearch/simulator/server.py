"""The API on 127.0.0.1 with a simulated model behind it: nothing here is real, and it says so."""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple

from autoresearch.simulator import MODEL
from autoresearch.simulator.model import World

PRICE = {"prompt": "0.0000002", "completion": "0.0000006"}  # USD per token
ABOUT = {"name": "simulated", "owned_by": "simulated", "context_length": 131_072, "pricing": PRICE}


class Reply(NamedTuple):
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection, served by a thread of its own."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "simulated", ""
    wbufsize = -1  # head and body leave together
    server: "Simulator"

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.close_connection |= self.server.stopped
        if not self.server.stopped:
            self.send(self.server.respond(self))

    do_GET = do_POST

    def send(self, reply: Reply) -> None:
        body = json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Simulator(ThreadingTCPServer):
    """Serves a World, whatever the key, until the end of `with Simulator() as server`."""

    daemon_threads = allow_reuse_address = True
    request_queue_size = 128
    models: tuple[str, ...] = (MODEL,)
    handler = Connection
    stopped = False

    def __init__(self, seed: int = 0, port: int = 0) -> None:
        self.world = World(seed)
        super().__init__(("127.0.0.1", port), self.handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.shutdown()
        self.server_close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        with suppress(ConnectionError):  # the client is gone
            super().finish_request(request, client_address)

    def respond(self, request: Connection) -> Reply:
        route = request.command, request.path.partition("?")[0]
        if route == ("GET", "/v1/models"):
            return Reply(200, {"data": [{"id": name, **ABOUT} for name in self.models]})
        if route != ("POST", "/v1/chat/completions"):
            return Reply(404, {"detail": "Not Found"})
        try:
            return self.chat(json.loads(request.body))
        except (ValueError, KeyError, TypeError):
            return Reply(422, {"detail": "simulated: this is no chat request"})

    def chat(self, asked: Mapping[str, Any]) -> Reply:
        if asked["model"] not in self.models:
            return Reply(404, {"detail": f"The model `{asked['model']}` does not exist."})
        said = {message["role"]: message["content"] for message in asked["messages"]}
        system, temperature = said.get("system", ""), asked.get("temperature", 1.0)
        text = self.world.complete(system, said["user"], temperature)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        read, written = len(system + said["user"]) // 4 + 1, len(text) // 4 + 1
        usage = dict(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
        return Reply(200, dict(id="simulated", model=asked["model"], usage=usage, choices=[choice]))
