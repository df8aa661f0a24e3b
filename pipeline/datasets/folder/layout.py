"""Where in a user's folder each image is, and which class and split the folders above it say.

<images>/<class>/<image>             at any depth below the class, or
<images>/<split>/<class>/<image>     if every folder of `images` is a split: train, val (also valid,
                                     validation) and test, in upper or lower case
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from pipeline.datasets import SplitName
from pipeline.errors import UserError
from pipeline.raw.images import EXTENSIONS
from pipeline.raw.walk import is_entered, is_image, walk
from pipeline.tables import shortened

SPLIT_FOLDERS: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

Tree = defaultdict[tuple[str, ...], set[str]]
"""The names of the folders that lie in a folder, given by its parts, and have images somewhere in them."""


@dataclass(frozen=True)
class Image:
    """An image's id (its path below `images`), its class, and its split where a folder says it.

    class_name: in Unicode's composed form, whatever the file system made of it.
    """

    id: str
    class_name: str
    split: SplitName | None


def find(root: Path, say: Callable[[str], None]) -> list[Image]:
    """Every image below `root`, sorted by id; UserError with all that is wrong with the folder."""
    files = list(walk(root))
    found = sorted((p.relative_to(root) for p in files if is_image(p)), key=Path.as_posix)
    problems = _unusable(root, found)
    splits = _splits(root, found, problems)
    _check_classes(root, splits, _tree(found), problems)
    if problems:
        raise UserError(problems)
    say(
        f"folder: {len(found)} images in {root}; {len(files) - len(found)} other files are left out"
    )
    if splits:
        say(f"folder: {', '.join(splits)} are taken as splits, and the folders in them as classes")
    images = [_image(path, splits) for path in found]
    _say_merged(found, images, bool(splits), say)
    return images


def _image(path: Path, splits: Mapping[str, SplitName]) -> Image:
    name = path.parts[1 if splits else 0]
    return Image(path.as_posix(), normalize("NFC", name), splits.get(path.parts[0]))


def _unusable(root: Path, found: Sequence[Path]) -> list[str]:
    """Images that are in no folder, lead nowhere, or have a name that is not text."""
    loose = [path for path in found if len(path.parts) == 1]
    broken = [path for path in found if not (root / path).exists()]
    unnamed = [ascii(path.as_posix())[1:-1] for path in found if not _is_text(path)]
    return [
        *shortened([f"{root / p} is in no class; move it into {root}/<class>/" for p in loose]),
        *shortened([f"{root / p} is a link to nothing; mend or remove it" for p in broken]),
        *shortened([f"{root}/{name}: its name is not UTF-8; rename it" for name in unnamed]),
    ]


def _is_text(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def _splits(root: Path, found: Sequence[Path], problems: list[str]) -> dict[str, SplitName]:
    """The folders that are splits: all of them or none; what is ambiguous is added to `problems`."""
    folders = [path.name for path in _folders(root)]
    named = {f: SPLIT_FOLDERS[f.casefold()] for f in folders if f.casefold() in SPLIT_FOLDERS}
    holding = {path.parts[0] for path in found if len(path.parts) == 2} & named.keys()
    if not named or (len(named) < len(folders) and holding == named.keys()):
        return {}  # a class may be called train
    if len(named) < len(folders):
        others = [name for name in folders if name not in named]
        problems.append(
            f"{root} has folders of splits ({', '.join(named)}) beside others "
            f"({', '.join(others[:5])}); allowed: splits alone, as in {root}/train/<class>, or "
            f"classes alone, as in {root}/<class>"
        )
        return {}
    problems += [
        f"{root / name} holds images, and as a split it holds a folder for each class; move them "
        f"into {root / name}/<class>/"
        for name in named
        if name in holding
    ]
    for split in dict.fromkeys(named.values()):
        same = [name for name in named if named[name] == split]
        if len(same) > 1:
            problems.append(f"{root} has {' and '.join(same)}; allowed: one folder for each split")
    if "train" not in named.values():
        problems.append(f"{root} has {', '.join(named)} and no train; allowed: train, val and test")
    return named


def _check_classes(
    root: Path, splits: Mapping[str, SplitName], tree: Tree, problems: list[str]
) -> None:
    """Add to `problems` folders without images, and what is one level too high."""
    train = next((name for name, split in splits.items() if split == "train"), None)
    above = (train,) if train else ()
    classes = tree[above]
    empty = [root / name for name in splits if not tree[name,]]
    empty += [path for path in _folders(root.joinpath(*above)) if path.name not in classes]
    problems += [
        f"{path} has no image; allowed: files ending in {' '.join(EXTENSIONS)}"
        for path in dict.fromkeys(empty)
    ]
    for name in [] if splits else sorted(classes):
        within = sorted(tree[name,])
        if len(within) > 1 and all(folder.casefold() in SPLIT_FOLDERS for folder in within):
            problems.append(
                f"{root / name} holds the splits {', '.join(within)}; if it is the data set, write "
                f"datasets.folder.images: {root / name}; if it is a class, put the splits above "
                f"the classes, as in {root}/{within[0]}/{name}"
            )
    if not problems and len({normalize("NFC", name) for name in classes}) < 2:
        deeper = [root / name for name in classes if not splits and len(tree[name,]) > 1]
        hint = [
            f"; write datasets.folder.images: {path}, if that holds the classes" for path in deeper
        ]
        problems.append(
            f"{root.joinpath(*above)} has {len(classes)} class folders; allowed: at least two"
            + "".join(hint)
        )


def _tree(found: Sequence[Path]) -> Tree:
    tree: Tree = defaultdict(set)
    for path in found:
        for depth, name in enumerate(path.parts[:-1][:3]):
            tree[path.parts[:depth]].add(name)
    return tree


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_entered(path))


def _say_merged(
    found: Sequence[Path], images: Sequence[Image], split: bool, say: Callable[[str], None]
) -> None:
    """Tell of classes whose folders' names differ in their Unicode form alone."""
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for path, image in zip(found, images, strict=True):
        spellings[image.class_name].add(path.parts[1 if split else 0])
    for name, forms in spellings.items():
        if len(forms) > 1:
            say(
                f"folder: {len(forms)} folders are called {name}, spelled with composed and with "
                "decomposed Unicode characters; they are one class"
            )
