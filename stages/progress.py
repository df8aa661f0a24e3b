"""Progress bars that are of use in a log file as well."""

from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 10.0  # between two lines where no terminal shows them


class Bar(tqdm):
    """Rate and time left: redrawn on a terminal, a line of its own every ten seconds in a log."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._begun = False
        if not self.fp.isatty():
            self.mininterval, self.miniters, self.dynamic_miniters = LOG_SECONDS, 1, False

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
