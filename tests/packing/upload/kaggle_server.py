"""A fake of Kaggle on the loopback address: answers the requests of Kaggle's client and stores the uploads."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The client reads its address from a table; Python imports a module of this name before the client.
SITECUSTOMIZE = """
import os, sys
if "kaggle" in sys.orig_argv:
    import kagglesdk.kaggle_env as env
    env._env_to_endpoint[env.KaggleEnv.PROD] = os.environ["TEST_KAGGLE"]
"""
HANG_UP = "hang up"

Body = dict[str, Any]


@dataclass
class Kaggle:
    """State and behaviour of the fake."""

    address: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    """By method, the faults of its next calls: an HTTP status or HANG_UP."""
    ready_after: int = 1
    """Number of status requests until a new version is ready."""
    runs: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    """States of a pushed notebook, one per status request."""
    failure: str | None = None
    outputs: dict[str, bytes] = field(default_factory=dict)
    """Files for GET requests."""
    invalid_sources: list[str] = field(default_factory=list)
    calls: list[tuple[str, Body]] = field(default_factory=list)
    blobs: dict[str, tuple[str, bytearray]] = field(default_factory=dict)
    """Name and content, by token."""
    versions: list[dict[str, bytes]] = field(default_factory=list)
    """Files of each version of the dataset."""
    pending: int = 0

    def list_calls(self, *names: str) -> list[str]:
        """Return those of the named methods that were called, in order."""
        return [name for name, _ in self.calls if name in names]

    def find_call(self, name: str) -> Body:
        """Return the body of the last call of a method."""
        return next(body for called, body in reversed(self.calls) if called == name)

    def take_fault(self, name: str) -> int | str | None:
        """Remove and return the fault of this call, if any."""
        waiting = self.faults.get(name)
        return waiting.pop(0) if waiting else None

    def answer(self, method: str, body: Body) -> tuple[int, Any]:
        """Return the HTTP status and the answer of a method: JSON or bytes."""
        if method == "GetDatasetStatus":
            if not self.versions:
                return 403, {"code": 403, "message": "Permission 'datasets.get' was denied"}
            self.pending -= 1
            return 200, {"status": "READY" if self.pending < 0 else "BLOBS_RECEIVED"}
        if method == "StartBlobUpload":
            token = f"token-{len(self.blobs)}"
            self.blobs[token] = body["name"], bytearray()
            return 200, {"token": token, "createUrl": f"{self.address}/upload/{token}"}
        if method in ("CreateDataset", "CreateDatasetVersion"):
            files = (body if method == "CreateDataset" else body["body"])["files"]
            contents = (self.blobs[file["token"]] for file in files)
            self.versions.append({name: bytes(content) for name, content in contents})
            self.pending = self.ready_after
            return 200, {"status": "ok", "url": f"{self.address}/datasets/{body['ownerSlug']}"}
        if method == "GetDatasetMetadata":
            return 200, {"info": {"licenses": [{"name": "other"}]}}
        if method == "DownloadDataset":
            # Kaggle serves the previous version until the new one is processed.
            ready = self.versions[-1 if self.pending <= 0 else -2] if self.versions[1:] or self.pending <= 0 else {}
            if body["fileName"] not in ready:
                return 404, {"code": 404, "message": "404 Client Error: no such file"}
            self.outputs[body["fileName"]] = ready[body["fileName"]]
            return 302, f"{self.address}/output/{body['fileName']}"
        if method == "SaveKernel":
            invalid = {"invalidDatasetSources": self.invalid_sources} if self.invalid_sources else {}
            return 200, {"ref": body["slug"], "versionNumber": 7, "url": f"{self.address}/code", **invalid}
        if method == "GetKernelSessionStatus":
            state = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
            return 200, {"status": state} | ({"failureMessage": self.failure} if self.failure else {})
        if method == "ListKernelSessionOutput":
            files = [{"url": f"{self.address}/output/{name}", "fileName": name} for name in self.outputs]
            return 200, {"files": files, "log": "the log"}
        return 404, {"code": 404, "message": f"no method {method}"}


class Handler(BaseHTTPRequestHandler):
    """HTTP requests to the fake, which is an attribute of the server."""

    protocol_version = "HTTP/1.1"

    @property
    def kaggle(self) -> Kaggle:
        return self.server.kaggle  # type: ignore[attr-defined, no-any-return]

    def do_POST(self) -> None:
        """Answer a method of the API: /v1/datasets.DatasetApiService/GetDatasetStatus."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        method = self.path.rpartition("/")[2]
        self.kaggle.calls.append((method, body))
        fault = self.kaggle.take_fault(method)
        if fault == HANG_UP:
            self.close_connection = True
        elif fault is not None:
            side = "Client" if int(fault) < 500 else "Server"
            self.send(int(fault), {"code": fault, "message": f"{fault} {side} Error: set by the test"})
        else:
            self.send(*self.kaggle.answer(method, body))

    def do_PUT(self) -> None:
        """Receive the bytes of a file by the protocol of Google's resumable uploads."""
        name, content = self.kaggle.blobs[self.path.rpartition("/")[2]]
        span, length = self.headers.get("Content-Range", ""), int(self.headers["Content-Length"])
        query = re.fullmatch(r"bytes \*/(\d+)", span)
        if query:  # asks how many bytes have arrived
            done = len(content) == int(query[1])
            self.send(
                200 if done else 308, {}, {"Range": f"bytes=0-{len(content) - 1}"} if content and not done else {}
            )
            return
        # The bytes start where the range starts; without a range, at 0.
        begin = re.match(r"bytes (\d+)-", span)
        del content[int(begin[1]) if begin else 0 :]
        if self.kaggle.take_fault(f"upload of {name}") == HANG_UP:
            content += self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
        else:
            content += self.rfile.read(length)
            self.send(200, {})

    def do_GET(self) -> None:
        """Send a file of a notebook's output."""
        self.send(200, self.kaggle.outputs[self.path.rpartition("/")[2]])

    def send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if status == 302:
            headers = {"Location": answer}
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: a test checks the output."""


@contextmanager
def run_kaggle() -> Iterator[Kaggle]:
    """Run the fake until the end of the block."""
    kaggle = Kaggle()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.kaggle = kaggle  # type: ignore[attr-defined]
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of clients whose connection was closed
        kaggle.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kaggle
        finally:
            server.shutdown()
            thread.join()
