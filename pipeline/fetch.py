"""Downloading a large file so that a broken connection or a stopped run costs only what was missing."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from pipeline import archives
from pipeline.datasets import Report
from pipeline.errors import UserError

ATTEMPTS = 5  # without a single new byte
TIMEOUT = 30  # seconds without a byte
BLOCK = 2**18


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def partials() -> Path:
    """Where half of a download waits for the rest: outside every stage's outputs, which DVC deletes."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / "download"


def fetch(url: str, target: Path, report: Report) -> None:
    """Download `url` to `target`, going on where an earlier try stopped.

    The part that is there already lies in `partials()`; it is moved to `target` when it is whole.
    Raises UserError if the server refuses or cannot be reached.
    """
    partial = partials() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        try:
            _go_on(url, partial, have, report)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # the part is longer than the file: another file
                partial.unlink()
            elif error.code < 500 and error.code != 429:
                raise UserError(f"{url}: the server says {error.code} {error.reason}") from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename:
                raise  # our own disk
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        grown = partial.exists() and partial.stat().st_size > have
        failures = 0 if grown else failures + 1
        if failures == ATTEMPTS:
            raise UserError(
                f"{url}: cannot be downloaded ({reason}); what has come is kept and the same "
                "command goes on from there"
            )
        report.say(f"connection lost ({reason}); trying again")
        time.sleep(min(2**failures, 30))
    partial.replace(target) if _same_disk(partial, target) else _move(partial, target)
