"""Calls that may hang, made in a thread and waited for no longer than a deadline.

Time limits of sockets and databases bound one read or one lock each; a server that answers a byte a
second, or a client that tries again, keeps within them for minutes.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """When a call must have made its next step; the call moves it with each answer it gets."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """From now on, wait `seconds` for the next step."""
        self.end = time.monotonic() + seconds


class Caller:
    """Makes one call at a time; a call that missed its deadline continues unattended."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._done.set()

    def call(self, function: Callable[[], T], deadline: Deadline) -> T:
        """The result of `function`, or its exception; TimeoutError past the deadline.

        TimeoutError at once while an earlier call has not ended.
        """
        if not self._done.is_set():
            raise TimeoutError("timed out before, and has not answered since")
        self._done.clear()
        result: list[T] = []
        errors: list[BaseException] = []
        done = self._done

        def work() -> None:
            try:
                result.append(function())
            except BaseException as error:
                errors.append(error)
            finally:
                done.set()

        # A daemon: a process can end while the call hangs.
        threading.Thread(target=work, daemon=True, name="tracking").start()
        while not done.wait(min(3600, max(0.0, deadline.end - time.monotonic()))):
            if time.monotonic() >= deadline.end:
                raise TimeoutError("timed out")
        if errors:
            raise errors[0]
        return result[0]
