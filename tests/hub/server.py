"""A Hugging Face Hub on 127.0.0.1: the part of its protocol that a model library meets, and its bad days.

Two servers, as in life: the hub itself, and the storage that large files are redirected to, which must never
see an access token. Faults are given out one request at a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_may_do_everything"
STRANGER = "hf_not_on_the_list"

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|preupload|commit|branch)/([^/]+))?")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class Repository:
    """Commits (their files) and what branches and tags point to."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def resolve(self, revision: str) -> str | None:
        """Full commit of a branch, tag or commit."""
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Fault:
    """What goes wrong with the next requests of a method whose path has a part."""

    part: str
    method: str = "GET"
    times: int = 1
    status: int = 0  # answer with this status
    headers: Mapping[str, str] = field(default_factory=dict)  # added to, or put in place of, the answer's
    cut: int = -1  # close the connection after so many bytes of the body
    body: bytes | None = None  # send this instead
    delay: float = 0.0  # seconds before the answer
    then: Callable[[], object] | None = None  # happens right after the answer was worked out


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    storage: bool  # to the storage rather than the hub


class FakeHub:
    """Start it with `with`; `endpoint` is what HF_ENDPOINT has to say."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.RLock()
        self._servers = [_Server(self, storage=False), _Server(self, storage=True)]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            server.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Gone: from now on connections are refused."""
        for server in self._servers:
            server.stop()

    def commit(self, name: str, files: Mapping[str, bytes], *, to: str = "main") -> str:
        """Add files to a branch or move a tag; the repository is made if need be."""
        with self.lock:
            repository = self.repositories.setdefault(name, Repository())
            before = repository.commits.get(repository.refs.get(to, ""), {})
            tree = {**before, **files}
            material = json.dumps([name, to, len(repository.commits), sorted(tree)]).encode()
            commit = hashlib.sha1(material + b"".join(tree[path] for path in sorted(tree))).hexdigest()
            repository.commits[commit] = tree
            repository.refs[to] = commit
            self.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
            return commit

    def requests(self, part: str = "", method: str = "") -> list[Seen]:
        """What has come in for paths with a part, telemetry left out."""
        with self.lock:
            return [
                seen
                for seen in self.seen
                if part in seen.path and method in ("", seen.method) and "agent-harnesses" not in seen.path
            ]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The first fault that is meant for a request."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub, *, storage: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.storage = hub, storage
        self.open: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up; that is their right."""

    def stop(self) -> None:
        if self.fileno() == -1:
            return
        self.shutdown()
        self.server_close()
        self.thread.join()
        for connection in list(self.open):
            self.shutdown_request(connection)


def is_large(path: str) -> bool:
    """Whether the hub keeps a file in the storage rather than in git."""
    return path.endswith((".safetensors", ".bin", ".jpg", ".png"))


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    fault: Fault | None = None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: `FakeHub.seen` has it all."""

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        self._begin()

    def do_POST(self) -> None:
        self._begin()

    def do_PUT(self) -> None:
        self._begin()

    def _begin(self) -> None:
        hub = self.server.hub
        self.where = unquote(urlsplit(self.path).path)
        with hub.lock:
            hub.seen.append(Seen(self.command, self.where, dict(self.headers), self.server.storage))
        body = self._read_body()
        self.fault = hub.take_fault(self.command, self.where)
        if self.fault is not None:
            time.sleep(self.fault.delay)
            if self.fault.status:
                return self._send(self.fault.status, b"the server is not well", {})
        if self.server.storage:
            return self._storage(body)
        path = urlsplit(self.path).path  # revisions are quoted: refs%2Fpr%2F1
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(match[1], unquote(match[2]), unquote(match[3]))
        if match := _BATCH.fullmatch(path):
            return self._batch(match[1], json.loads(body))
        if match := _API.fullmatch(path):
            return self._api(match[1], match[2], unquote(match[3] or "main"), body)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._refuse(404, "")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # --- answers --------------------------------------------------------------------------------------------

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        fault = self.fault or Fault("")
        body = body if fault.body is None else fault.body
        sent = {"Content-Length": str(len(body)), **headers, **fault.headers}
        self.send_response(status)
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.then is not None:
            fault.then()
        if self.command == "HEAD":
            return
        self.wfile.write(body if fault.cut < 0 else body[: fault.cut])
        if fault.cut >= 0:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._send(status, b"", named | {name.replace("_", "-"): value for name, value in headers.items()})

    # --- access ---------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_read(self, name: str) -> Repository | None:
        """The repository, or an answer that is as unhelpful as the real one's."""
        repository = self.server.hub.repositories.get(name)
        if repository is None or (repository.private and self.token != TOKEN):
            self._refuse(404 if self.token else 401, "RepoNotFound")
            return None
        if repository.gated and self.token != TOKEN:
            self._refuse(403 if self.token else 401, "GatedRepo")
            return None
        return repository

    def _may_write(self) -> bool:
        if self.token != TOKEN:
            self._refuse(403 if self.token else 401, "")
        return self.token == TOKEN

    # --- reading --------------------------------------------------------------------------------------------

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._may_read(name)
        if repository is None:
            return
        commit = repository.resolve(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if path not in repository.commits[commit]:
            return self._refuse(404, "EntryNotFound", X_Repo_Commit=commit)
        data = repository.commits[commit][path]
        if not is_large(path):
            return self._file(data, {"X-Repo-Commit": commit, "ETag": f'"{git_hash(data)}"'})
        digest = hashlib.sha256(data).hexdigest()
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.server.hub.storage}/{name}/{digest}/{path}",
        }
        self._send(302, b"", headers)

    def _file(self, data: bytes, headers: Mapping[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, headers)
        start = int(wanted[1])
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206, data[start:], {**headers, "Content-Range": span})

    def _storage(self, body: bytes) -> None:
        digest = self.where.split("/")[-2]
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == digest
            with self.server.hub.lock:
                self.server.hub.objects[digest] = body
            return self._send(200, b"", {"ETag": f'"{digest}"'})
        self._file(self.server.hub.objects[digest], {"ETag": '"a tag of the storage"'})

    # --- writing --------------------------------------------------------------------------------------------

    def _api(self, name: str, action: str | None, revision: str, body: bytes) -> None:
        if action in (None, "revision"):
            repository = self._may_read(name)
            if repository is not None:
                commit = repository.resolve(revision)
                if commit is None:
                    return self._refuse(404, "RevisionNotFound")
                self._json({"id": name, "sha": commit, "siblings": []})
            return
        if not self._may_write():
            return
        repository = self.server.hub.repositories.get(name)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if action == "branch":
            if revision in repository.refs:
                return self._refuse(409, "")
            repository.refs[revision] = repository.refs["main"]
            return self._json({})
        if repository.resolve(revision) is None:
            return self._refuse(404, "RevisionNotFound")
        if action == "preupload":
            return self._preupload(repository, revision, json.loads(body))
        self._commit(name, revision, body)

    def _preupload(self, repository: Repository, revision: str, wanted: Any) -> None:
        tree = repository.commits[repository.resolve(revision) or ""]
        files = []
        for one in wanted["files"]:
            path, large = one["path"], is_large(one["path"])
            known = tree.get(path)
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if known is not None:
                answer["oid"] = hashlib.sha256(known).hexdigest() if large else git_hash(known)
            files.append(answer)
        self._json({"files": files})

    def _batch(self, name: str, wanted: Any) -> None:
        if not self._may_write():
            return
        objects = []
        for one in wanted["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.hub.objects:
                href = f"{self.server.hub.storage}/upload/{one['oid']}/data"
                answer["actions"] = {"upload": {"href": href}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, revision: str, body: bytes) -> None:
        files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.objects[value["oid"]]
        commit = self.server.hub.commit(name, files, to=revision)
        url = f"{self.server.hub.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _create(self, wanted: Any) -> None:
        if not self._may_write():
            return
        hub = self.server.hub
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{hub.endpoint}/{name}"}
        with hub.lock:
            if name in hub.repositories:
                return self._json(url, 409)
            hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
            hub.repositories[name].private = wanted.get("visibility") == "private"
        self._json(url)
