"""An HTTP proxy that misbehaves as it is told: the network between us and an MLflow server."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html>\n<html><body>Please log in" + b"." * 5000 + b"</body></html>"
_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class Fault(Enum):
    none = auto()
    # The server has done it; nobody hears of that.
    done_then_500 = auto()
    done_then_dropped = auto()
    done_then_hangs = auto()
    # Done, a quarter of a second later.
    slow = auto()
    # As if somebody in between had repeated it.
    done_twice = auto()
    # The server never hears of it.
    refused_429 = auto()
    refused_401 = auto()
    refused_403 = auto()
    refused_500 = auto()
    dropped = auto()
    page = auto()
    hangs = auto()


@dataclass
class Request:
    method: str
    path: str
    # Counts from 0, over all requests, and over those that are the same to the last byte.
    number: int
    repeat: int


@dataclass
class FaultProxy:
    """Forwards to a port of this machine; `rule` says what goes wrong with a request, before it is forwarded."""

    upstream: int | None = None
    rule: Callable[[Request], Fault] = lambda _: Fault.none
    requests: list[Request] = field(default_factory=list)
    counts: Counter[tuple[str, str, bytes]] = field(default_factory=Counter)
    port: int = 0
    # Set when the proxy is closed: lets go of whatever hangs.
    closed: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, method: str, path: str, body: bytes) -> Fault:
        with self.lock:
            same = (method, path, body)
            request = Request(method, path, len(self.requests), self.counts[same])
            self.counts[same] += 1
            self.requests.append(request)
            return self.rule(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server.proxy
        fault = proxy.take(self.command, self.path, body)
        self.close_connection = True
        if fault is Fault.hangs:
            proxy.closed.wait(60)
        elif fault is Fault.page:
            self.answer(200, PAGE, {"Content-Type": "text/html"})
        elif fault.name.startswith("refused_"):
            self.answer(int(fault.name.removeprefix("refused_")), b"no", {})
        elif fault is not Fault.dropped:
            self.forward(proxy, body, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def forward(self, proxy: FaultProxy, body: bytes, fault: Fault) -> None:
        if fault is Fault.done_twice:
            self.ask(proxy, body)
        status, headers, content = self.ask(proxy, body)
        if fault is Fault.slow:
            proxy.closed.wait(0.25)
        if fault in (Fault.none, Fault.slow, Fault.done_twice):
            self.answer(status, content, headers)
        elif fault is Fault.done_then_500:
            self.answer(500, b"lost", {})
        elif fault is Fault.done_then_hangs:
            proxy.closed.wait(60)

    def ask(self, proxy: FaultProxy, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        connection.request(self.command, self.path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return (
            reply.status,
            {name: value for name, value in reply.getheaders() if name.lower() not in _HOP},
            content,
        )

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, *arguments: object) -> None:
        """A client that was killed leaves a broken connection, which is no news here."""


@contextmanager
def run_proxy(upstream: int | None = None) -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream)
    server = _Server(proxy)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
