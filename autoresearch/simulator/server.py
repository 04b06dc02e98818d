"""The API on 127.0.0.1 with a simulated model behind it: nothing here is real, and it says so."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple, TypeVar

from autoresearch.simulator import MODEL
from autoresearch.simulator.model import World

Self = TypeVar("Self", bound="Simulator")


class Reply(NamedTuple):
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection, served by a thread of its own."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "simulated", ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: Simulator
    body = b""

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send(self.server.respond(self))

    do_GET = do_POST

    def send(self, reply: Reply) -> None:
        body = json.dumps(reply.body).encode()
        length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.send_response(reply.status)
        for name, value in {**reply.headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Simulator(ThreadingTCPServer):
    """Serves a World, whatever the key, in a thread: `with Simulator() as server: server.url`.

    `respond` and `chat` are called once per request, from many threads.
    """

    daemon_threads = allow_reuse_address = True
    request_queue_size = 128
    models: tuple[str, ...] = (MODEL,)
    handler = Connection

    def __init__(self, seed: int = 0, port: int = 0) -> None:
        self.world = World(seed)
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), self.handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self: Self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.open):  # or clients keep them, and their threads go on
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        with suppress(ConnectionError):  # the client is gone
            super().finish_request(request, client_address)
        self.open.discard(request)

    def respond(self, request: Connection) -> Reply:
        route = request.command, request.path.partition("?")[0]
        if route == ("GET", "/v1/models"):
            return Reply(200, {"object": "list", "data": [listed(name) for name in self.models]})
        if route != ("POST", "/v1/chat/completions"):
            return Reply(404, {"detail": "Not Found"})
        try:
            return self.chat(json.loads(request.body))
        except (ValueError, KeyError, TypeError):
            return Reply(422, {"detail": "simulated: this is no chat request"})

    def chat(self, asked: Mapping[str, Any]) -> Reply:
        if asked["model"] not in self.models:
            return Reply(404, {"detail": f"The model `{asked['model']}` does not exist."})
        said = [(message["role"], message["content"]) for message in asked["messages"]]
        system = "\n\n".join(text for role, text in said if role == "system")
        user = "\n\n".join(text for role, text in said if role != "system")
        text = self.world.complete(system, user, asked.get("temperature", 1.0))
        return Reply(200, completion(asked["model"], system + user, text))


def listed(model: str) -> dict[str, Any]:
    price = {"prompt": "0.0000002", "completion": "0.0000006"}  # USD per token
    name = {"id": model, "object": "model", "name": "simulated: no real model"}
    return {**name, "owned_by": "simulated", "pricing": price, "context_length": 131_072}


def completion(model: str, asked: str, text: str) -> dict[str, Any]:
    read, said = (len(asked) + 3) // 4, (len(text) + 3) // 4  # tokens, about
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "model": model,
        "system_fingerprint": "simulated",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said},
    }
