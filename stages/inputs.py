"""Note what the files outside the project hold that params.yaml names: data/inputs.json.

Runs each time, since DVC cannot know beforehand which files those are; what it writes changes only
with their content, and the stages that use them depend on that.
"""

from pipeline import inputs, params
from pipeline.files import read_json, write_json
from stages import entry
from stages.layout import INPUTS


def main() -> None:
    before = {}
    if INPUTS.exists():
        try:
            before = read_json(INPUTS)["inputs"]
        except (ValueError, KeyError):
            print(f"{INPUTS}: unreadable; written again")
    found = inputs.read(params.read(params.FILE), before, print)
    if found != before:
        write_json(INPUTS, {"inputs": found})
    old, new = (params.leaves(values) for values in (before, found))
    for key in sorted({*old, *new}) if before else ():
        if old.get(key) != new.get(key):
            print(f"{key}: what it names has changed")


if __name__ == "__main__":
    entry.run(main, __doc__)
