"""Ctrl-C while a command still imports: one line, where Python would print a traceback of the imports.

`stages` and `tools` call `quiet` first of all, before PyTorch is loaded; `entry.run` takes over.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def quiet() -> None:
    """End with one line at Ctrl-C, if this process was started as a command of ours."""
    started = Path(sys.argv[0]).name if sys.argv else ""
    ours = started in ("-m", "wsol")  # `python -m` has not found its module yet
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted: nothing was begun\n")
    os._exit(128 + number)
