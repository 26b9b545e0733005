"""A schema registry on this machine, for the tools that want one: what `_schemas` says, over HTTP, to be read only.

It holds nothing, so it may be started, stopped and run twice at will. The topic is read again when the last reading is
older than a second: clients keep what they were told, so a request is rare and may cost a reading, and a schema that
was registered a moment ago is found.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ops.registry.rest import CONTENT_TYPE, Answer, answer, error
from ops.registry.schema_log import read_schemas
from schemas.errors import OperatorError, TroupeError
from schemas.registry import SchemaView

HOST = "127.0.0.1"

_FRESH_SECONDS = 1.0
_REQUEST_SECONDS = 10.0  # a client that connects and says nothing
_BODY_BYTES_MAX = 1_000_000


class Schemas:
    """The schemas as they were at most a second ago; for any number of threads."""

    def __init__(self, bootstrap: str, timeout_seconds: float) -> None:
        self._bootstrap, self._timeout = bootstrap, timeout_seconds
        self._lock = threading.Lock()
        self._view: SchemaView | None = None
        self._read_at = 0.0

    def view(self) -> SchemaView:
        """Raises OperatorError if the topic is missing or foreign, BrokerUnavailable without an answer in time."""
        with self._lock:
            if self._view is None or time.monotonic() - self._read_at > _FRESH_SECONDS:
                self._view = asyncio.run(read_schemas(self._bootstrap, self._timeout))
                self._read_at = time.monotonic()
            return self._view


class Registry(ThreadingHTTPServer):
    """Listens from its making on; `serve_forever` answers until `shutdown`."""

    daemon_threads = True

    def __init__(self, schemas: Schemas, port: int) -> None:
        """Port 0 takes any free one. Raises OperatorError if the port is taken."""
        self.schemas = schemas
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as wrong:
            raise OperatorError(f"Port {port} cannot be used: {wrong}", hint="--port 0 takes a free one") from wrong

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _BODY_BYTES_MAX:
            self.close_connection = True  # what follows is a body of unknown length
            self._send(error(41301, f"A body of at most {_BODY_BYTES_MAX} bytes is needed, with its Content-Length"))
            return
        self._answer(self.rfile.read(int(length)))

    def do_PUT(self) -> None:
        self.close_connection = True
        self._answer(b"")

    do_DELETE = do_PUT

    def _answer(self, body: bytes) -> None:
        try:
            found = answer(self.server.schemas.view(), self.command, self.path, body)
        except TroupeError as wrong:
            found = error(50301, f"{wrong}" + (f" ({wrong.hint})" if wrong.hint else ""))
        self._send(found)

    def _send(self, found: Answer) -> None:
        data = json.dumps(found.document, ensure_ascii=False).encode()
        self.send_response(found.status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who asks for schemas is of no interest."""
