"""Downloads by huggingface_hub, from a server of our own that answers as the Hub does."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import runs

DIRECTORY = Path(__file__).parent / "goldens" / "hf_vivit_dir"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository, owner/model; every other one is a 404."""

    def log_message(self, *arguments):
        """Says nothing."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        files = {f"/owner/model/resolve/{COMMIT}/{x.name}": x for x in DIRECTORY.iterdir()}
        if path.startswith("/api/models/owner/model"):
            names = [{"rfilename": x.name, "size": x.stat().st_size} for x in DIRECTORY.iterdir()]
            listing = {"id": "owner/model", "sha": COMMIT, "siblings": names}
            tree = [{"type": "file", "path": x["rfilename"], "size": x["size"], "oid": COMMIT} for x in names]
            self.reply(200, json.dumps(tree if "/tree/" in path else listing).encode(), body)
        elif path in files:
            self.reply(200, files[path].read_bytes(), body)
        else:
            self.reply(404, b"", body, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def reply(self, code: int, content: bytes, body: bool, headers: dict[str, str] | None = None):
        self.send_response(code)
        etag = hashlib.sha1(content).hexdigest()
        standard = {"Content-Length": str(len(content)), "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        for name, value in (standard | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def load(name: str, **variables: str) -> subprocess.CompletedProcess:
    code = f"import vivit_jax; model = vivit_jax.load_model({name!r}); print(model.config.num_layers, 'layers')"
    environment = runs.environment(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1", HF_HUB_DISABLE_XET="1", **variables)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_download_then_offline(endpoint, tmp_path):
    done = load("owner/model", HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path))
    assert "3 layers" in done.stdout, done.stderr
    again = load("owner/model", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))  # from the cache
    assert "3 layers" in again.stdout, again.stderr


def test_no_such_repository(endpoint, tmp_path):
    done = load("owner/other", HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path))
    assert (
        "owner/other: no file or folder, and no repository of the Hugging Face Hub, or it is private or gated"
        in done.stderr
    )


def test_nothing_to_reach(tmp_path):
    done = load("owner/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "owner/model: no file or folder, not in the cache, and the Hugging Face Hub cannot be reached" in done.stderr
