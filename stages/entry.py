"""How every stage and command starts and ends: a user's mistake is one line and exit code 2."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from pipeline.errors import UserError
from pipeline.files import disk_problem
from pipeline.text import screened

NOTHING_HALF = "nothing half-written is left; run the same command again"


class Interrupts:
    """Ctrl-C as KeyboardInterrupt; a second one, while the first is dealt with, ends the process at once."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            os._exit(128 + number)
        self.came = True
        raise KeyboardInterrupt


@screened()
def run(main: Callable[[], None], description: str | None = None, kept: str = NOTHING_HALF) -> None:
    """Call `main`; exit 2 on a user's mistake or a full disk, 130 on Ctrl-C.

    description: of a stage without arguments; `--help` then prints it, and anything else is refused.
    kept: what the line at Ctrl-C says of the work done so far.
    """
    interrupts = Interrupts()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupts)
    try:
        if description is not None:
            no_arguments(description)
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        _end(130, [f"interrupted: {kept}"])
    except Exception as error:
        if interrupts.came:  # libraries turn a KeyboardInterrupt into errors of their own
            _end(130, [f"interrupted: {kept}"])
        elif isinstance(error, UserError):
            _end(2, [f"error: {problem}" for problem in error.problems])
        elif isinstance(error, BrokenPipeError):  # who reads the output has seen enough: `… | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        elif problem := disk_problem(error):
            _end(2, [f"error: {problem}"])
        raise


def _end(code: int, lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(code)


def no_arguments(description: str) -> None:
    """Answer `--help`, refuse every other argument."""
    spec = sys.modules["__main__"].__spec__
    argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec else None,
        description=description,
        epilog="A stage of dvc.yaml: `dvc repro` runs it when it is due. It reads params.yaml.",
    ).parse_args()
