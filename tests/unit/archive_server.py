"""A web server on this machine that misbehaves as asked."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What the server has and how it behaves; change the fields between requests.

    Attributes:
        files: content by path.
        etag: version that it names; None for none. Last-Modified likewise.
        cut_after: bytes of an answer after which it closes the connection, once for each number in the list.
        ranges: whether it continues where asked to.
        wrong_range: whether it leaves out a byte there.
        pause: seconds of silence between pieces of `piece` bytes.
        length: what it announces instead of the content's length; "" for nothing.
        more: bytes that it sends behind what it announces.
        redirects: where it sends those who ask for a path.
        slow_head: seconds between the letters of an answer's first header, which never ends.
        reason: its reason phrase.
        errors: status codes of the next answers.
        requests: (path, Range header) of what was asked.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"v1"'
    last_modified: str | None = None
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    wrong_range: bool = False
    pause: float = 0.0
    piece: int = 1000
    length: str | None = None
    more: bytes = b""
    redirects: dict[str, str] = field(default_factory=dict)
    slow_head: float = 0.0
    reason: str | None = None
    errors: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            server.requests.append((self.path.lstrip("/"), asked))
            content = server.files.get(self.path.lstrip("/"))
            if server.slow_head:
                self._drip()
                return
            if target := server.redirects.get(self.path.lstrip("/")):
                self.send_response(302)
                self.send_header("Location", target)
                self.end_headers()
                self.wfile.write(b"moved " * 1000)
                return
            if server.errors or content is None:
                self.send_error(server.errors.pop(0) if server.errors else 404, server.reason)
                return
            version = server.etag or server.last_modified
            start = 0
            if asked and server.ranges and self.headers.get("If-Range") == version:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                start += server.wrong_range
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if server.etag:
                self.send_header("ETag", server.etag)
            if server.last_modified:
                self.send_header("Last-Modified", server.last_modified)
            if server.length != "":
                self.send_header("Content-Length", server.length or str(len(content) - start))
            self.end_headers()
            end = start + server.cut_after.pop(0) if server.cut_after else len(content)
            with contextlib.suppress(OSError):
                for at in range(start, min(end, len(content)), server.piece):
                    self.wfile.write(content[at:min(at + server.piece, end)])
                    self.wfile.flush()
                    time.sleep(server.pause)
                self.wfile.write(server.more)

        def _drip(self):
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
                for _ in range(200):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(server.slow_head)

    return Handler


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server that runs within the block."""
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
