"""Check all of params.yaml before any work starts; writes a marker that never changes."""

import os
import sys
from pathlib import Path

from pipeline import cache, params
from pipeline.errors import UserError
from pipeline.files import write_text
from stages import entry

MARKER = Path("data/params.ok")


def main() -> None:
    try:
        params.load_all()
    except UserError:
        if "DVC_EXP_NAME" in os.environ and cache.in_project():
            print(
                "note: `dvc exp run -S` leaves its values in params.yaml, also when it fails: correct them, "
                "or take back all that is not committed with `git checkout params.yaml`",
                file=sys.stderr,
            )
        raise
    # The same text always: the stages behind depend on the check, not on what was checked.
    write_text(MARKER, "params.yaml passed the check\n")


if __name__ == "__main__":
    entry.run(main, __doc__)
