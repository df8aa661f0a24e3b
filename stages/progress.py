"""Progress bars that are of use in a log file as well."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 10.0  # between two lines where no terminal shows them


class Bar(tqdm):
    """Rate and time left: redrawn on a terminal, a line of its own every ten seconds in a log."""

    def __init__(self, **options: Any) -> None:
        log = not (options.get("file") or sys.stderr).isatty()
        # A delay at the start spares a log the line that says "0 %".
        super().__init__(**({"delay": 1e-6, "mininterval": LOG_SECONDS} if log else {}), **options)
        if log:
            self.miniters, self.dynamic_miniters, self.delay = 1, False, 0
        self._begun = False

    @classmethod
    def write(cls, text: str, file: TextIO | None = None, **options: Any) -> None:
        """Print `text`; on a terminal above the bars, which a log need not show again."""
        file = file or sys.stdout
        if file.isatty():
            super().write(text, file, **options)
        else:
            print(text, file=file, flush=True)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        if file.isatty():
            show: Callable[[str], None] = tqdm.status_printer(file)
            return show

        def line(text: str) -> None:
            if text:
                file.write(f"{text}\n")
                file.flush()

        return line

    def to(self, done: int, total: int, unit: str) -> None:
        """Show that `done` of `total` (0: unknown) is done; what was done at the first call took no time."""
        self.total, self.unit, self.unit_scale = total or None, unit, unit == "B"
        if not self._begun:
            self._begun = True
            self.initial = self.n = self.last_print_n = done
        self.update(done - self.n)
