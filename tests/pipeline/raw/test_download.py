"""Downloads from a server in this process, with all a server may do wrong."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.datasets import Report
from pipeline.errors import UserError
from pipeline.raw import download

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves CONTENT; `moods` are taken one per request, the last one stays."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.moods = ["fine"]
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/birds.tgz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        mood = server.moods.pop(0) if len(server.moods) > 1 else server.moods[0]
        if mood.isdigit():
            self.send_error(int(mood))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if mood == "no ranges":
            start = 0
        elif start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        stop = start + 300_000 if mood == "drops" else len(server.content)
        self.wfile.write(server.content[start:stop])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def parts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / ".checkpoints" / "download").iterdir())


def test_a_download_arrives_whole_and_tells_its_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    download.fetch(server.url, tmp_path / "x", Report(progress=lambda *p: told.append(p)))
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT), "B")
    assert parts(tmp_path) == []


def test_a_lost_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.moods, said = ["drops", "503", "drops", "drops", "fine"], []
    download.fetch(server.url, tmp_path / "x", Report(say=said.append))
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.asked == [
        None,
        "bytes=300000-",
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]
    assert len(said) == 4
    assert said[0].startswith("connection lost (it ended after 300,000 of 1,024,000 bytes)")


def test_a_stopped_run_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.moods = ["drops", "503"]
    with pytest.raises(UserError, match=r"birds\.tgz: cannot be downloaded \(the server says 503"):
        download.fetch(server.url, tmp_path / "x", Report())
    assert not (tmp_path / "x").exists()
    assert [part.stat().st_size for part in parts(tmp_path)] == [300_000]
    server.moods = ["fine"]
    download.fetch(server.url, tmp_path / "x", Report())
    assert server.asked[-1] == "bytes=300000-"
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.moods = ["drops", "no ranges"]
    download.fetch(server.url, tmp_path / "x", Report())
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    server.moods = ["drops", "404"]
    with pytest.raises(UserError, match="the server says 404"):
        download.fetch(server.url, tmp_path / "x", Report())
    (part,) = parts(tmp_path)
    part.write_bytes(CONTENT)
    server.moods, server.asked = ["fine"], []
    download.fetch(server.url, tmp_path / "x", Report())
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_of_another_file_is_dropped(server: Server, tmp_path: Path) -> None:
    server.moods = ["drops", "404"]
    with pytest.raises(UserError):
        download.fetch(server.url, tmp_path / "x", Report())
    server.moods, server.content = ["fine"], b"new and short"
    download.fetch(server.url, tmp_path / "x", Report())
    assert (tmp_path / "x").read_bytes() == b"new and short"


def test_no_server_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/x: cannot be downloaded \(.*refused"):
        download.fetch("http://127.0.0.1:9/x", tmp_path / "x", Report())
