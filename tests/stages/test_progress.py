"""Progress in a log file: lines of their own, not too many, with rate and time left."""

import io

import pytest

from stages import progress
from stages.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with Bar(total=1000, desc="preprocess", unit="image", file=log) as bar:
        bar._time = lambda: now[0]
        for done in range(200, 1001):  # a restart: 200 were there; 40 a second from now on
            bar.to(done, 1000, "image")
            now[0] += 1 / 40
    assert "\r" not in log.getvalue()
    first, last = log.getvalue().splitlines()[:2]
    assert first.endswith("| 601/1000 [00:10<00:09, 40.00image/s]")
    assert last.startswith("preprocess: 100%|")


def test_what_is_said_in_a_log_repeats_no_bar() -> None:
    log = io.StringIO()
    with Bar(total=3, file=log):
        Bar.write("said", file=log)
        assert log.getvalue() == "said\n"


def test_a_terminal_gets_one_line_redrawn() -> None:
    terminal = Terminal()
    with Bar(total=3, desc="x", file=terminal) as bar:
        for done in range(4):
            bar.to(done, 3, "B")
    assert terminal.getvalue().count("\n") == 1
    assert "3.00/3.00" in terminal.getvalue()
    assert bar.mininterval < progress.LOG_SECONDS


def test_an_unknown_total_shows_what_is_done() -> None:
    log = io.StringIO()
    with Bar(desc="download", file=log) as bar:
        bar.to(0, 0, "B")
        bar.to(5_000_000, 0, "B")
    assert "5.00MB" in log.getvalue()
