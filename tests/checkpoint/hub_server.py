"""A Hub on the loopback: metadata, redirects to large files, ranges, and faults on demand. The client is
the real one."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_BLOCK = 64 * 1024


@dataclass
class Commit:
    """The files of a repository at one commit."""

    sha: str
    files: dict[str, bytes]


@dataclass
class Hub:
    """One repository, ``org/model``: its branches, its commits, and what goes wrong."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    """Bytes of large files that were delivered."""
    spoil: Callable[[str, bytes], bytes] = field(default=lambda name, content: content)
    """What is delivered in place of a file's bytes."""
    cut: int = 0
    """How many deliveries of large files break off half-way."""
    refuse: int = 0
    """How many requests for large files are answered with 503."""
    answer: int = 0
    """The status that every request is answered with; 0: what is right."""
    answer_headers: dict[str, str] = field(default_factory=dict)
    seconds_a_block: float = 0.0
    on_metadata: Callable[[Hub], None] = field(default=lambda hub: None)
    """Called after the metadata of a revision was delivered."""
    url: str = ""

    def push(self, branch: str, files: dict[str, bytes]) -> str:
        """A new commit on ``branch``."""
        names = json.dumps(
            {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}, sort_keys=True
        )
        sha = hashlib.sha1(
            f"{branch} {len(self.commits)} {names}".encode(), usedforsecurity=False
        ).hexdigest()
        self.commits[sha] = Commit(sha, files)
        self.branches[branch] = sha
        return sha


def folder_files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def is_large(name: str) -> bool:
    """Is this file stored with Git LFS?"""
    return name.endswith((".safetensors", ".bin"))


def blob_id(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def digest_of(name: str, content: bytes) -> str:
    """What the Hub says a file's content is called."""
    return hashlib.sha256(content).hexdigest() if is_large(name) else blob_id(content)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.hub.answer:
            self._send(self.hub.answer, b"{}", self.hub.answer_headers)
        elif parts[:2] == ["api", "models"]:
            self._metadata(parts)
        elif parts[0] == "large":
            self._large("/".join(parts[2:]), self.hub.commits[parts[1]], body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[4:]), parts[3], body)
        else:
            self._send(404, b"{}")

    def _metadata(self, parts: list[str]) -> None:
        revision = parts[5] if len(parts) > 5 and parts[4] == "revision" else "main"
        commit = self.hub.commits.get(self.hub.branches.get(revision, revision))
        if parts[2:4] != ["org", "model"] or commit is None:
            code = "RepoNotFound" if parts[2:4] != ["org", "model"] else "RevisionNotFound"
            return self._send(404, b"{}", {"X-Error-Code": code})
        siblings = []
        for name, content in commit.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
            if is_large(name):
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                }
            siblings.append(entry)
        self._send(
            200,
            json.dumps(
                {"id": "org/model", "modelId": "org/model", "sha": commit.sha, "siblings": siblings}
            ).encode(),
        )
        self.hub.on_metadata(self.hub)
        return None

    def _file(self, name: str, revision: str, body: bool) -> None:
        commit = self.hub.commits.get(self.hub.branches.get(revision, revision))
        if commit is None or name not in commit.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = commit.files[name]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{digest_of(name, content)}"'}
        if is_large(name):
            # another host, as on the Hub
            location = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/large/{commit.sha}/{name}"
            linked = {
                "X-Linked-ETag": f'"{digest_of(name, content)}"',
                "X-Linked-Size": str(len(content)),
                "Location": location,
            }
            return self._send(302, b"", headers | linked)
        delivered = self.hub.spoil(name, content)
        return self._send(
            200,
            delivered if body else b"",
            headers | ({} if body else {"Content-Length": str(len(delivered))}),
        )

    def _large(self, name: str, commit: Commit, body: bool) -> None:
        content = self.hub.spoil(name, commit.files[name])
        headers = {"ETag": f'"{digest_of(name, commit.files[name])}"', "Accept-Ranges": "bytes"}
        if not body:
            return self._send(200, b"", headers | {"Content-Length": str(len(content))})
        if self.hub.refuse > 0:
            self.hub.refuse -= 1
            return self._send(503, b"later")
        start, total = 0, len(content)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, total_asked = int(first), int(last) + 1 if last else total
            content = content[:total_asked]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{total}"
        content = content[start:]
        self.send_response(206 if asked else 200)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        end = len(content)
        if self.hub.cut > 0 and end > 1:
            self.hub.cut -= 1
            end //= 2
        for place in range(0, end, _BLOCK):
            try:
                self.wfile.write(content[place : min(place + _BLOCK, end)])
            except OSError:
                break
            self.hub.sent += min(_BLOCK, end - place)
            time.sleep(self.hub.seconds_a_block)
        if end < len(content):
            self.close_connection = True
        return None

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (
            {"Content-Length": str(len(content)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` on a free port of the loopback."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
