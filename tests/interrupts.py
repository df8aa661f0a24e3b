"""Ctrl-C for processes that tests start."""

import signal


def interruptible() -> None:
    """To be run in a child before its program: a shell's background job, a test run may be, ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
