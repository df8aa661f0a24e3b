"""What a run logs, on disk before it is anywhere else: one JSON object per line, one file per run.

    <root>/.journal/<key>.jsonl    the events; later runs of the same key: <key>.2.jsonl, <key>.3.jsonl
    <root>/.journal/<key>.files/   copies of the artifacts that wait for delivery
    <root>/.journal/<key>.sent     how far each MLflow store has been told, and as which run

Two locks keep processes apart, and both vanish with the process that held them: the journal itself
is locked by the run that writes it for as long as it lives, `.sent` by the process that delivers it.
"""

import errno
import fcntl
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

Event = dict[str, Any]


def now() -> int:
    """Milliseconds since the epoch, MLflow's unit of time."""
    return time.time_ns() // 1_000_000


def read(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from byte `offset` on, each with the offset behind it; a half-written line is left.

    An offset that is no line's beginning (the disk lost the end of the file) counts as 0.
    """
    with path.open("rb") as file:
        file.seek(max(offset - 1, 0))
        if offset and file.read(1) != b"\n":
            offset = file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:  # the disk has damaged it
                continue
            yield event, offset


def files(journal: Path) -> Path:
    """The folder of the copies that wait for delivery."""
    return journal.with_suffix(".files")


def all_journals(root: Path) -> list[Path]:
    """Every journal that says anything, the oldest first: a training before its evaluation."""
    began = {}
    for path in (root / ".journal").glob("*.jsonl"):
        for event, _ in read(path):
            began[path] = event["t"]
            break
    return sorted(began, key=lambda path: began[path])


def _lock(file: BinaryIO) -> bool:
    """Take the lock of `file` without waiting; a file system without locks counts as taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def write(file: BinaryIO, event: Event) -> None:
    """Append one event to an open journal."""
    file.write(json.dumps(event, ensure_ascii=False, default=str).encode() + b"\n")
    file.flush()


class Journal:
    """One run's events, held by the process that writes them.

    `events` are those found at opening (a resumed run), without later additions.
    """

    def __init__(self, root: Path, key: str, reopen: bool = False) -> None:
        """Take the first journal of `key` that no living process holds and that has not finished.

        reopen: a finished one is gone on with as well.
        """
        folder = root / ".journal"
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            self.path = folder / (f"{key}.jsonl" if number == 1 else f"{key}.{number}.jsonl")
            self._file = self.path.open("a+b")
            if _lock(self._file):
                self.events = [event for event, _ in read(self.path)]
                if reopen or not self.events or self.events[-1].get("status") != "FINISHED":
                    break
            self._file.close()
        # A process that was killed in the middle of a line leaves half of it behind.
        self._file.truncate(max((end for _, end in read(self.path)), default=0))
        self.uid = next((event["uid"] for event in self.events if "uid" in event), uuid.uuid4().hex)
        self._threads = threading.Lock()

    def append(self, event: str, **values: Any) -> None:
        """Write one event, stamped with the time."""
        with self._threads:
            write(self._file, {"event": event, "t": now(), **values})

    def slot(self, name: str) -> Path:
        """A new, empty folder's path for one artifact called `name`, below `files`."""
        folder = files(self.path) / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        return folder / name

    def keep(self, source: Path) -> str:
        """Copy a file or folder, for its path may hold another run's content by the time of delivery."""
        target = self.slot(source.name)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return str(target.relative_to(files(self.path)))

    def close(self) -> None:
        """Let the journal go."""
        self._file.close()


@contextmanager
def unheld(path: Path) -> Iterator[BinaryIO | None]:
    """The journal opened for appending, or None while a living run writes it."""
    with path.open("ab") as file:
        yield file if _lock(file) else None


@contextmanager
def sent(journal: Path) -> Iterator[dict[str, Any] | None]:
    """What has been delivered, by store; None while another process delivers this journal.

    Changes made in the block are saved, also when it ends in an error. An unreadable file counts as
    nothing delivered: delivering twice changes nothing.
    """
    with journal.with_suffix(".sent").open("a+b") as file:
        if not _lock(file):
            yield None
            return
        file.seek(0)
        try:
            state = json.loads(file.read() or b"{}")
        except ValueError:
            state = {}
        try:
            yield state
        finally:
            file.truncate(0)
            file.write(json.dumps(state).encode())


def left(journal: Path, store: str) -> int:
    """The number of events that `store` has not been told yet."""
    try:
        state = json.loads(journal.with_suffix(".sent").read_bytes())
    except (OSError, ValueError):
        state = {}
    return sum(1 for _ in read(journal, state.get(store, {}).get("offset", 0)))
