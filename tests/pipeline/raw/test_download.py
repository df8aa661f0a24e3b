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
        self.seen: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/birds.tgz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        server.seen.append((self.path, self.headers["Authorization"]))
        mood = server.moods.pop(0) if len(server.moods) > 1 else server.moods[0]
        if mood.startswith("to "):
            self.send_response(302)
            self.send_header("Location", mood.removeprefix("to "))
            self.end_headers()
            return
        if mood.startswith("raw "):
            self.wfile.write(mood.removeprefix("raw ").encode().decode("unicode_escape").encode())
            return
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
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").touch()
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


@pytest.mark.parametrize(
    ("mood", "told"),
    [
        ("to file:///etc/passwd", "the server says 302 .*file:///etc/passwd"),
        ("to ftp://127.0.0.1/x", r"redirects to ftp://127\.0\.0\.1/x; allowed: http and https"),
        ("to data:,x", "the server says 302"),
        ("to http://[::1", "malformed"),
        ("to http://127.0.0.1:port/", "malformed"),
        ("to /birds.tgz", "the server says 302 .*infinite loop"),
        ("raw HTTP/1.1 200 OK\\r\\nContent-Length: ten\\r\\n\\r\\n", "Content-Length is 'ten'"),
        ("raw HTTP/1.1 200 OK\\r\\nContent-Length: -1\\r\\n\\r\\n", "Content-Length is '-1'"),
        ("raw SSH-2.0-server\\r\\n", "malformed"),
        ("raw HTTP/1.1 two hundred\\r\\n\\r\\n", "malformed"),
        ("raw HTTP/1.1 200 OK\\r\\n" + "A: b\\r\\n" * 200, "malformed .*100 headers"),
        ("raw HTTP/1.1 200 OK\\r\\nA: " + "b" * 70_000, "malformed"),
        ("401", "the server says 401 .*; give a name and password in ~/.netrc, or a token in"),
    ],
)
def test_what_no_server_should_answer_is_refused_at_once_in_a_line(
    server: Server, tmp_path: Path, mood: str, told: str
) -> None:
    server.moods = [mood]
    said: list[str] = []
    with pytest.raises(UserError, match=told) as caught:
        download.fetch(server.url, tmp_path / "x", Report(say=said.append))
    assert said == []
    assert str(caught.value).startswith(server.url)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("url", ["http://", "https:///x.tgz", "http://host:port/x", "http://[/x"])
def test_an_address_without_a_host_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="malformed"):
        download.fetch(url, tmp_path / "x", Report())


def test_other_letters_in_an_address_are_escaped(server: Server, tmp_path: Path) -> None:
    download.fetch(server.url.replace("birds", "die V\u00f6gel"), tmp_path / "x", Report())
    assert server.seen == [("/die%20V%C3%B6gel.tgz", None)]


def test_what_only_the_user_knows_comes_from_outside_and_is_not_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password goes to the host that it is for, not to where that redirects to."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv(download.QUERY, "token=quiet")
    other = server.url.replace("127.0.0.1", "localhost")
    server.moods = [f"to {other}?sig=psst", "fine"]
    download.fetch(f"{server.url}?download=1", tmp_path / "x", Report())
    assert server.seen == [
        ("/birds.tgz?download=1&token=quiet", "Basic bWU6aHVzaA=="),
        ("/birds.tgz?sig=psst", None),
    ]
    server.moods = ["to ftp://x/y?sig=psst&token=quiet"]
    with pytest.raises(UserError) as caught:
        download.fetch(server.url, tmp_path / "x", Report())
    assert not any(secret in str(caught.value) for secret in ("psst", "quiet", "hush"))


def test_a_netrc_that_cannot_be_read_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine\n\nnonsense here\n")
    with pytest.raises(UserError, match=r"~/\.netrc cannot be used: line \d is malformed"):
        download.fetch(server.url, tmp_path / "x", Report())
