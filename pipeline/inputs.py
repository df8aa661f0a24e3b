"""External inputs: what the files and folders hold that params.yaml names, so that DVC sees them change.

The fields are found by their types, `FilePath`, `InputFile` and so on, in the source of the sections:
importing every method would load PyTorch. Content is read again only where size, times or inode differ
from the last time, so a folder of 100,000 images costs a listing.
"""

import ast
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pipeline import cache, code
from pipeline.errors import UserError
from pipeline.files import disk_problem, read_json, write_json
from pipeline.params import Ablate, leaves, unchecked_variants

HERE = Path(__file__).parent
PATTERNS = {  # the files that count, by the field's type
    "FilePath": ("*",),
    "InputFile": ("*",),
    "InputFolder": ("*",),
    "InputArchives": ("*.tar", "*.tgz", "*.tar.gz"),  # directly in the folder
}
FOLDERS = ("InputFolder", "InputArchives")
LARGE = 2**30  # bytes; larger files are sampled
FRESH = 2 * 10**9  # nanoseconds; a file written so lately may change again within its time stamp
READERS = 8  # threads
MANY = 2000  # files whose reading is announced

ABLATE_NEITHER = ("ablate", "datasets", "methods", "prepare", "evaluate.pictures")
"""What a variant does not read of params.yaml, or not as a whole; DVC sees the prepared data itself."""

Say = Callable[[str], None]
Signature = list[int]
Listing = dict[str, tuple[str, Signature]]


def read(raw: Mapping[str, Any], before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Digests of all that the values `raw` of params.yaml name, under the same keys; None for no path.

    Of datasets the chosen one counts; of methods and other rooms all do, since ablation variants use
    them; `ablate` holds what a variant's `set` names. `before` is the last answer: a path that this
    machine lacks keeps its digest.
    """
    kinds = named(raw)
    table = Table.load()

    def digest(key: str, kind: str, value: object, *place: str) -> str | None:
        last: Any = before
        for part in place or key.split("."):
            last = last.get(part) if isinstance(last, Mapping) else None
        return _digest(key, kind, value, last if isinstance(last, str) else None, table, say)

    found: dict[str, Any] = {"ablate": {}}
    for room in _rooms(raw):
        chosen = [raw.get("dataset")] if room == "datasets" else sorted(raw[room])
        found[room] = {name: {} for name in chosen}
    for key, kind in kinds.items():
        *parents, last = key.split(".")
        if parents[:1] == ["datasets"] and parents[1] != raw.get("dataset"):
            continue
        inside, value = found, raw
        for part in parents:
            inside, value = inside.setdefault(part, {}), value[part]
        inside[last] = digest(key, kind, value.get(last))
    for name, variant in (raw.get("ablate") or {}).get("variants", {}).items():
        for key, value in (variant.get("set") or {}).items():
            if key in kinds:
                where = f"ablate.variants.{name}.set.{key}"
                own = digest(where, kinds[key], value, "ablate", name, key)
                found["ablate"].setdefault(name, {})[key] = own
    table.save()
    return found | {"asked": _asked(raw, found)}


def _asked(raw: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """A digest of what each name in `ablate.run` stands for: params, own code and files of its variants."""
    ablate = Ablate.model_validate(raw["ablate"])
    values = unchecked_variants(dict(raw))

    def variant(key: str) -> str:
        own = values[key]
        used = {
            name: value
            for name, value in leaves(own).items()
            if not {name, name.partition(".")[0]} & set(ABLATE_NEITHER)
        }
        parts = {room: own[f"{room}s"].get(own[room]) for room in ("dataset", "method")}
        files = [found["weights"], found["methods"].get(own["method"]), found["ablate"].get(key)]
        text = code.meaning(f"pipeline.methods.{own['method']}")
        return json.dumps([key, used, parts, files, text], sort_keys=True)

    return {
        name: cache.digest(variant(key).encode() for key in ablate.asked(name))[:32]
        for name in ablate.run
    }


def named(raw: Mapping[str, Any]) -> dict[str, str]:
    """The type of each value of params.yaml that names files, by dotted key."""
    found = dict(_fields(HERE / "params" / "settings.py", "File"))
    for room in _rooms(raw):
        for name in sorted(raw[room]):
            if file := _module(room, name):
                found |= {f"{room}.{name}.{key}": kind for key, kind in _fields(file, "Params")}
    return found


def _rooms(raw: Mapping[str, Any]) -> list[str]:
    """Sections of params.yaml that are named after a folder and hold a section for each module of it."""
    return [
        room
        for room, sections in raw.items()
        if isinstance(sections, dict) and any(_module(room, name) for name in sections)
    ]


def _module(room: str, name: str) -> Path | None:
    folder = HERE / room
    return next(
        (f for f in (folder / f"{name}.py", folder / name / "__init__.py") if f.exists()), None
    )


def _fields(file: Path, name: str) -> Iterator[tuple[str, str]]:
    """Fields of the class `name` whose annotations have one of the types, through nested sections."""
    text = file.read_text("utf-8")
    if not any(kind in text for kind in PATTERNS):
        return
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}

    def inside(name: str) -> Iterator[tuple[str, str]]:
        for node in classes[name].body if name in classes else []:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            for part in ast.walk(node.annotation):
                if isinstance(part, ast.Name) and part.id in PATTERNS:
                    yield node.target.id, part.id
                elif isinstance(part, ast.Name) and part.id in classes:
                    for key, kind in inside(part.id):
                        yield f"{node.target.id}.{key}", kind

    yield from inside(name)


class Table:
    """SHA-256 of files by path, size, times and inode, kept for the next time."""

    def __init__(self, known: dict[str, dict[str, Any]]) -> None:
        self.known = known
        self.changed = False

    @classmethod
    def load(cls) -> "Table":
        try:
            return cls(read_json(cache.store("inputs.json")))
        except (OSError, ValueError):
            return cls({})

    def save(self) -> None:
        if self.changed:
            write_json(cache.store("inputs.json"), self.known)

    def digest(self, root: Path, files: Listing, say: Say) -> str:
        """Of the names and contents of `files` together."""
        before = self.known.get(str(root), {})
        changed = [
            name
            for name, (_, signature) in files.items()
            if name not in before or before[name][:-1] != signature
        ]
        if len(changed) > MANY:
            say(f"{root}: reading {len(changed):,} new or changed files")
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(_content, (files[name][0] for name in changed))
            digests = dict(zip(changed, read, strict=True))
        now = {name: digests.get(name) or before[name][-1] for name in files}
        youngest = time.time_ns() - FRESH
        kept = {
            name: [*signature, now[name]]
            for name, (_, signature) in files.items()
            if not signature or signature[2] < youngest
        }
        if kept != before:
            self.known[str(root)] = kept
            self.changed = True
        return cache.digest(f"{name}\0{now[name]}".encode() for name in sorted(now))[:32]


def _digest(
    key: str, kind: str, value: object, last: str | None, table: Table, say: Say
) -> str | None:
    if not isinstance(value, str) or "://" in value:
        return None
    path = cache.project_path(value)
    try:
        if path.is_file() or (path.is_dir() and kind in FOLDERS):
            return table.digest(path.absolute(), _listing(path, kind), say)
    except OSError as error:
        raise UserError(f"params.yaml: {key}: {disk_problem(error, path) or error}") from error
    if last is None or not (kind in FOLDERS or "/" in value or path.suffix):
        return None  # `none`, or what the stage that needs it will miss
    say(f"{key}: {value} is not on this machine; what it held when it was last read counts")
    return last


def _listing(path: Path, kind: str) -> Listing:
    """Every file that counts, by its name below `path`, through links; hidden ones are left out."""
    if not path.is_dir():
        return {"": (str(path), _signature(path.stat()))}
    patterns = PATTERNS[kind]
    found: Listing = {}
    pending = [(str(path), "", frozenset({os.path.realpath(path)}))]
    while pending:
        folder, prefix, above = pending.pop()
        for entry in os.scandir(folder):
            name, file = f"{prefix}{_text(entry.name)}", entry.path
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(file) if entry.is_symlink() else file
                if patterns == ("*",) and real not in above:
                    found[f"{name}/"] = file, []
                    pending.append((file, f"{name}/", above | {real}))
            elif any(fnmatch(entry.name, pattern) for pattern in patterns):
                try:
                    found[name] = file, _signature(entry.stat())
                except FileNotFoundError:  # a link to nothing
                    found[name] = file, []
    return found


def _signature(stat: os.stat_result) -> Signature:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _content(file: str) -> str:
    """SHA-256 of a file, sampled where it is large; a word for folders and broken links."""
    path = Path(file)
    if path.is_dir():
        return "folder"
    if not path.exists():
        return "missing"
    large = path.stat().st_size > LARGE
    return cache.sampled_digest(path) if large else cache.digest_file(path)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
