"""The one exception that means *the user can mend this*: shown without a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in parameters or data: what was given, what is allowed, where to change it.

    Each line of `problems` stands alone, so several mistakes can be told at once.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        given = [problems] if isinstance(problems, str) else problems
        # A file name may hold a newline, and would forge a line.
        self.problems = [problem.replace("\n", "\\n") for problem in given]
        super().__init__("\n".join(self.problems))
