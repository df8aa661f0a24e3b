"""Check all of params.yaml before any work starts; writes a marker that never changes."""

from pathlib import Path

from pipeline import params
from pipeline.outputs import write_text
from stages import entry

MARKER = Path("data/params.ok")


def main() -> None:
    params.load_all()
    # The same text always: the stages behind depend on the check, not on what was checked.
    write_text(MARKER, "params.yaml passed the check\n")


if __name__ == "__main__":
    entry.run(main)
