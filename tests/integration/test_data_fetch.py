"""Data sets are downloaded over HTTP from a server of the test's own, and checked."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedjob.failure import Failure
from fedjob.fetch import PUBLISHED, PublishedData, PublishedFile, fetch
from tests.support.runs import fedjob

CONTENT = {"a.gz": b"first" * 1000, "b.gz": b"second" * 300_000}
DATA = PublishedData(
    base="http://unused.invalid",
    files=tuple(
        PublishedFile(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    ),
)


class Server:
    """Serves files, after as many faults as it was told."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = dict(files), []
        self.faults: dict[str, list[str]] = {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.rpartition("/")[2]
        self.asked.append(name)
        fault = self.faults.get(name, []) and self.faults[name].pop(0)
        content = self.files.get(name)
        if content is None or fault == "503":
            request.send_error(404 if content is None else 503)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2] if fault == "cut" else content)


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[tuple[Server, str]]:
    server = Server(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{listening.server_address[1]}/mirror"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def test_files_are_fetched_once_and_what_is_right_is_left_alone(tmp_path: Path, capsys):
    folder = tmp_path / "new" / "folder"
    with serving(CONTENT) as (server, base):
        fetch("mnist", folder, base=base, published=DATA)
        assert server.asked == ["a.gz", "b.gz"]
        (folder / "a.gz").write_bytes(b"damaged")
        fetch("mnist", folder, base=f"{base}/", published=DATA)
        assert server.asked == ["a.gz", "b.gz", "a.gz"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert f"path: {folder}" in capsys.readouterr().out


def test_a_transfer_that_breaks_is_tried_again_and_given_up_in_the_end(tmp_path: Path):
    with serving(CONTENT) as (server, base):
        server.faults = {"a.gz": ["503", "cut"]}
        fetch("mnist", tmp_path, base=base, published=DATA)
        server.faults = {"a.gz": ["cut"] * 3}
        with pytest.raises(Failure, match=r"a.gz: .*; tried 3 times"):
            fetch("mnist", tmp_path / "other", base=base, published=DATA)
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"x" * 5000, r"a.gz: is not what was published: its sha256 is [0-9a-f]{64}, [0-9a-f]{64} is expected"),
        (b"x" * 5001, r"a.gz: is not what was published: it has more than 5000 bytes"),
        (None, r"a.gz: answered 404 Not Found; --from names another server"),
    ],
)
def test_what_is_not_what_was_published_is_not_kept(tmp_path: Path, content, complaint):
    files = dict(CONTENT)
    files.pop("a.gz")
    with serving(files | ({} if content is None else {"a.gz": content})) as (server, base):
        with pytest.raises(Failure, match=complaint):
            fetch("mnist", tmp_path, base=base, published=DATA)
        assert server.asked == ["a.gz"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path):
    with serving({file.name: bytes(file.size) for file in PUBLISHED["mnist"].files}) as (_, base):
        done = fedjob("data", "fetch", "mnist", "--from", base, "--dir", tmp_path / "mnist", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "train-images-idx3-ubyte.gz: is not what was published" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = fedjob("data", "fetch", "mnist", "--from", "ftp://x", cwd=tmp_path)
    assert (done.returncode, "http:// or https:// is needed" in done.stderr) == (2, True)
    assert fedjob("data", "fetch", "imagenet", cwd=tmp_path).returncode == 2
