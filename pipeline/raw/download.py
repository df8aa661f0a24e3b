"""Downloading a large file so that a broken connection or a stopped run costs only what was missing."""

import base64
import hashlib
import http.client
import netrc
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline import cache, files
from pipeline.addresses import without_secrets
from pipeline.datasets import Report
from pipeline.errors import UserError

ATTEMPTS = 5  # without a single new byte
TIMEOUT = 30  # seconds without a byte
BLOCK = 2**18
QUERY = "WSOL_DOWNLOAD_QUERY"
ESCAPED = "/%:=&?~#+!$,;'@()*[]"  # characters of an address that are left as they are
_CREDENTIALS = f"give a name and password in ~/.netrc, or a token in {QUERY}"


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def partials() -> Path:
    """Where half of a download waits for the rest: outside every stage's outputs, which DVC deletes."""
    return cache.store("download")


def fetch(url: str, target: Path, report: Report) -> None:
    """Download `url` to `target`, going on where an earlier try stopped.

    A name and password come from ~/.netrc, the rest of a query from WSOL_DOWNLOAD_QUERY. What has come
    lies in `partials()` and is moved to `target` when it is whole. Raises UserError if the server
    refuses, cannot be reached, or answers what no server should.
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
            error.close()
            reason = f"the server says {error.code} {_line(error.reason)}"
            if error.code < 500 and error.code != 429:
                hint = f"; {_CREDENTIALS}" if error.code in (401, 403) else ""
                raise UserError(f"{url}: {reason}{hint}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _line(getattr(error, "reason", error)) or type(error).__name__
            if _is_malformed(error):
                what = "the address or the server's answer is malformed"
                raise UserError(f"{url}: {what} ({reason})") from error
            if isinstance(error, OSError) and error.errno in files.FULL:
                raise
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS:
            raise UserError(
                f"{url}: cannot be downloaded ({reason}); what has come is kept, and the same "
                "command continues from there"
            )
        report.say(f"connection lost ({reason}); trying again")
        time.sleep(min(2**failures, 30))


def _line(text: object) -> str:
    return without_secrets(" ".join(str(text).split()))


def _is_malformed(error: Exception) -> bool:
    """Whether another try would end in the same way; a lost connection is an OSError."""
    return isinstance(error, ValueError | http.client.HTTPException) and not isinstance(
        error, OSError | http.client.IncompleteRead
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone; the answer to one that is refused is closed."""

    def http_error_302(self, req, fp, code, msg, headers):  # type: ignore[no-untyped-def]
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if not is_url(newurl):
            raise ValueError(f"it redirects to {newurl}; allowed: http and https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str) -> urllib.request.Request:
    """The request for `url`, with what only this user may know."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host")
    query = "&".join(filter(None, (parts.query, os.environ.get(QUERY, "").lstrip("?&"))))
    full = urlunsplit((parts.scheme, parts.netloc, quote(parts.path, safe=ESCAPED), query, ""))
    request = urllib.request.Request(full, headers={"User-Agent": "wsol-pipeline"})
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(parts.hostname)
    except FileNotFoundError:
        known = None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)  # not what is in it: it may be the password
        what = f"line {line} is malformed" if line else error
        raise UserError(f"~/.netrc cannot be used: {what}") from error
    if known:
        name_and_password = f"{known[0]}:{known[2]}".encode()
        # Not sent on to where the server redirects to.
        request.add_unredirected_header(
            "Authorization", f"Basic {base64.b64encode(name_and_password).decode()}"
        )
    return request


def _go_on(url: str, partial: Path, report: Report) -> None:
    """Add to `partial` what it lacks; begin anew if the server cannot send parts."""
    have = _size(partial)
    request = _request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
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
        elif not response.headers.get("Content-Range", asked := f"bytes {have}-").startswith(asked):
            partial.unlink()
            raise ConnectionError("it sent another part than it was asked for")
        total = have + _length(response.headers)
        with partial.open("ab" if have else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                have += len(block)
                report.progress(have, total, "B")
    if have < total:
        raise ConnectionError(f"it ended after {have:,} of {total:,} bytes")


def _length(headers: http.client.HTTPMessage) -> int:
    """The bytes that are to come; 0 if the server does not say."""
    text = headers.get("Content-Length")
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"Content-Length is {text!r}")
    return int(text)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
