"""Downloading a large file so that a broken connection or a stopped run costs only what was missing."""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from pipeline import cache, files
from pipeline.datasets import Report
from pipeline.errors import UserError

ATTEMPTS = 5  # without a single new byte
TIMEOUT = 30  # seconds without a byte
BLOCK = 2**18


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def partials() -> Path:
    """Where half of a download waits for the rest: outside every stage's outputs, which DVC deletes."""
    return cache.store("download")


def fetch(url: str, target: Path, report: Report) -> None:
    """Download `url` to `target`, going on where an earlier try stopped.

    What has come lies in `partials()` and is moved to `target` when it is whole. Raises UserError
    if the server refuses or cannot be reached.
    """
    partial = partials() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(partial)
        try:
            _go_on(url, partial, report)
            shutil.move(partial, target)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise UserError(f"{url}: the server says {error.code} {error.reason}") from error
            reason = f"the server says {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in files.FULL:
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS:
            raise UserError(
                f"{url}: cannot be downloaded ({reason}); what has come is kept, and the same "
                "command goes on from there"
            )
        report.say(f"connection lost ({reason}); trying again")
        time.sleep(min(2**failures, 30))


def _go_on(url: str, partial: Path, report: Report) -> None:
    """Add to `partial` what it lacks; begin anew if the server cannot send parts."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "wsol-pipeline"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies beyond what we have
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # it was whole already
        partial.unlink()
        raise ConnectionError("the file on the server is another one now") from error
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        with partial.open("ab" if have else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                have += len(block)
                report.progress(have, total, "B")
    if have < total:
        raise ConnectionError(f"it ended after {have:,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
