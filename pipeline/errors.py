"""The one exception that means *the user can mend this*: shown without a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in parameters or data: what was given, what is allowed, where to change it.

    Each line of `problems` stands alone, so several mistakes can be told at once.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
