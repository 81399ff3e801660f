"""A Hugging Face Hub on this machine: as much of it as a download of single files asks for."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

COMMIT = "a" * 40


class FakeHub(SimpleNamespace):
    """One repository, whose files are the same in all commits.

    Attributes:
        repo_id: Its name.
        files: Contents by name.
        commits: All commits, at the last of which is `main`.
        gated: Whether the access is restricted.
        status: What is answered to everything, if it is set.
        etags: What is stated as the hash of a file instead of its SHA-256, by name; one after the other, the last for
            ever.
        commit_header: What is stated as the commit instead of it, if it is set.
        sent: What is sent instead of a file, by name.
        requests: Method and file of each request.
    """


@contextlib.contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, repo_id: str, files: dict[str, bytes]) -> Iterator[FakeHub]:
    """Makes huggingface_hub ask a server in this process; afterwards it asks the real one again."""
    hub = FakeHub(
        repo_id=repo_id, files=files, commits=[COMMIT], gated=False, status=None, requests=[],
        etags={}, commit_header=None, sent={},
    )  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            content = self.answer()
            if content:
                self.wfile.write(content)

        def answer(self):
            repository, _, rest = self.path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            hub.requests.append((self.command, name))
            content = hub.files.get(name)
            commit = hub.commits[-1] if revision == "main" else revision
            headers = {"X-Repo-Commit": hub.commit_header or commit}
            match (repository == hub.repo_id, commit in hub.commits, content):
                case _ if hub.status is not None:
                    return self.refuse(hub.status, "ServerError")
                case False, _, _:
                    return self.refuse(401, "RepoNotFound")
                case _ if hub.gated:
                    return self.refuse(403, "GatedRepo")
                case True, False, _:
                    return self.refuse(404, "RevisionNotFound")
                case True, True, None:
                    return self.refuse(404, "EntryNotFound", headers)
            etags = hub.etags.get(name) or [hashlib.sha256(content).hexdigest()]
            content = hub.sent.get(name, content)
            headers |= {"ETag": f'"{etags[0]}"', "Content-Length": str(len(content))}
            if len(etags) > 1 and self.command == "HEAD":
                del etags[0]
            self.reply(200, headers)
            return content

        def refuse(self, status, code, headers=None):
            self.reply(status, {"X-Error-Code": code, "Content-Length": "0", **(headers or {})})

        def reply(self, status, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with asking(monkeypatch, f"http://127.0.0.1:{server.server_port}"):
            yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def asking(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Iterator[None]:
    """Makes huggingface_hub ask another address, without a token and without waiting before it tries again."""
    with monkeypatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        patch.setattr("time.sleep", lambda seconds: None)
        # Clients read the environment when they are made.
        huggingface_hub.close_session()
        try:
            yield
        finally:
            huggingface_hub.close_session()
