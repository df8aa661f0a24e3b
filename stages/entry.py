"""How every stage starts and ends: a user's mistake is one line and a non-zero exit, no traceback."""

import sys
from collections.abc import Callable

from pipeline.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Call `main`; exit 2 on a user's mistake, 130 on Ctrl-C."""
    try:
        main()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on", file=sys.stderr)
        sys.exit(130)
