"""How every stage and command starts and ends: a user's mistake is one line and exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable

from pipeline.errors import UserError


def run(main: Callable[[], None], description: str | None = None) -> None:
    """Call `main`; exit 2 on a user's mistake, 130 on Ctrl-C.

    description: of a stage without arguments; `--help` then prints it, and anything else is refused.
    """
    try:
        if description is not None:
            no_arguments(description)
        main()
        sys.stdout.flush()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # who read the output has seen enough: `wsol preset | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on", file=sys.stderr)
        sys.exit(130)


def no_arguments(description: str) -> None:
    """Answer `--help`, refuse every other argument."""
    spec = sys.modules["__main__"].__spec__
    argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec else None,
        description=description,
        epilog="A stage of dvc.yaml: `dvc repro` runs it when it is due. It reads params.yaml.",
    ).parse_args()
