"""The only reader of params.yaml: frozen, typed, checked whole before any work starts.

    params = load()                # what a stage needs; imports the chosen dataset and method only
    params.train.learning_rate     # 0.02

Every mistake in the file is reported at once, one line each: what was given, what is allowed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pipeline import addresses
from pipeline.cache import project_path
from pipeline.errors import UserError
from pipeline.params import yamlfile
from pipeline.params.plug_points import ALIASES, POINTS
from pipeline.params.section import (
    DatasetSection,
    FilePath,
    Section,
    described,
    unknown,
    validated,
    wrong,
)
from pipeline.params.settings import (
    CLASS_MAP,
    Ablate,
    Box,
    Evaluate,
    File,
    Heatmaps,
    Input,
    Localize,
    Prepare,
    Train,
    TwoStage,
    Variant,
)

__all__ = [
    "CLASS_MAP",
    "Ablate",
    "Box",
    "DatasetSection",
    "Evaluate",
    "FilePath",
    "Heatmaps",
    "Input",
    "Localize",
    "Params",
    "Prepare",
    "Section",
    "Train",
    "TwoStage",
    "Variant",
    "flat",
    "leaves",
    "load",
    "load_ablate",
    "load_all",
    "load_evaluate",
    "variant",
]

Scalar = str | int | float | bool | None
T = TypeVar("T")
S = TypeVar("S", bound=Section)

FILE = Path("params.yaml")


@dataclass(frozen=True)
class Params:
    """One experiment: (dataset, method, localizer, backbone, seed) and all that changes its numbers."""

    dataset: str
    method: str
    backbone: str
    weights: str
    seed: int
    localizer: str
    heatmap: str
    data: Section
    """The chosen dataset's section, a `pipeline.datasets.<dataset>.Params`."""
    prepare: Prepare
    input: Input
    train: Train
    heatmaps: Heatmaps
    box: Box
    localize: Localize
    evaluate: Evaluate
    localizers: Mapping[str, Section]
    """By name, the sections of the chosen localizer and of those it learns from; empty if not asked for."""
    method_params: Section
    """The chosen method's section, a `pipeline.methods.<method>.Params`; empty if not asked for."""
    ablate: Ablate


def load(path: Path = FILE, *, method: bool = True, localizer: bool = False) -> Params:
    """Read params.yaml; raises UserError with every problem.

    Only the chosen dataset's, method's and localizer's modules are imported, so that a DVC stage depends
    on no more code than it uses; without `method` and `localizer`, PyTorch is not either.
    """
    return _raised(path, *_parsed(read(path), method=method, localizer=localizer))


def load_all(path: Path = FILE, text: str | None = None) -> Params:
    """Read params.yaml as `load`, and check all that any stage may use.

    That is every dataset's and method's section, every ablation variant, and the names of backbones
    where they will be used. `text`, if given, stands for the file's content.
    """
    raw = read(path, text)
    params, problems = _parsed(raw, every=True)
    problems += _backbone_problems(raw)
    ablate = validated(Ablate, raw.get("ablate"), "ablate", [])
    if ablate is None:
        return _raised(path, params, problems)  # told with the whole file
    own, wanted = set(problems), ablate.wanted()
    for key, changes in ablate.variants.items():
        values, found = _changed(raw, changes, own)
        found += _parsed(values, every=True)[1]
        if key in wanted:
            found += _backbone_problems(values)
        problems += [f"ablate.variants.{key}: {problem}" for problem in found if problem not in own]
    return _raised(path, params, problems)


def load_ablate(path: Path = FILE) -> Ablate:
    """Read only the ablation's section, importing no dataset and no method."""
    return _section(Ablate, "ablate", path)


def load_evaluate(path: Path = FILE) -> Evaluate:
    """Read only the section on scores and pictures, importing no dataset and no method."""
    return _section(Evaluate, "evaluate", path)


def _section(kind: type[S], name: str, path: Path) -> S:
    problems: list[str] = []
    return _raised(path, validated(kind, read(path).get(name), name, problems), problems)


def variant(key: str, path: Path = FILE) -> Params:
    """The params of one ablation variant: its method, its backbone and its `set` applied."""
    variants = load_ablate(path).variants
    if key not in variants:
        known = [f"ablate.variants.{name}" for name in variants]
        raise UserError(f"{path}: {unknown(f'ablate.variants.{key}', known)}")
    values, problems = _changed(read(path), variants[key])
    params, more = _parsed(values, localizer=True)
    problems = [f"ablate.variants.{key}: {problem}" for problem in problems + more]
    return _raised(path, params, problems)


def unchecked_variants(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The whole file's plain values as each ablation variant has them, without importing any method."""
    ablate = validated(Ablate, raw.get("ablate"), "ablate", [])
    return {k: _changed(raw, v)[0] for k, v in ablate.variants.items()} if ablate else {}


def flat(params: Params) -> dict[str, Scalar]:
    """Dotted keys and single values of one experiment, for tracking; lists joined with commas.

    Of datasets and methods only the chosen sections; the ablation is no part of an experiment.
    """
    sections = {
        f"datasets.{params.dataset}": params.data,
        "prepare": params.prepare,
        "input": params.input,
        "train": params.train,
        "heatmaps": params.heatmaps,
        "box": params.box,
        "localize": params.localize,
        "evaluate": params.evaluate,
        **{f"localizers.{name}": section for name, section in params.localizers.items()},
        f"methods.{params.method}": params.method_params,
    }
    values: dict[str, Scalar] = {
        name: getattr(params, name)
        for name in (*("dataset", "method", "backbone", "weights", "seed", "localizer", "heatmap"),)
    }
    for name, section in sections.items():
        for key, value in leaves(section.model_dump(), f"{name}.").items():
            values[key] = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return values


def read(path: Path, text: str | None = None) -> dict[str, Any]:
    """The plain, unchecked values of the file, or of a `text` that stands for its content."""
    try:
        values = yamlfile.parse(path.read_text("utf-8") if text is None else text, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run this where params.yaml is") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text; allowed: YAML in UTF-8") from None
    if not isinstance(values, dict):
        allowed = ", ".join(File.model_fields)
        raise UserError(f"{path}: {wrong('the file', values, f'the keys {allowed}')}")
    # Before all else: other problems would show the values.
    if secrets := [f"{path}: {key}: {problem}" for key, problem in _secrets(leaves(values))]:
        raise UserError(secrets)
    return values


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The single values and lists of nested mappings, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        found |= leaves(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def names(kind: str) -> list[str]:
    """What `dataset`, `method` or `localizer` may be: the modules in pipeline/datasets and so on."""
    found = (Path(__file__).parents[1] / kind).glob("[!_.]*")
    return sorted(
        path.stem
        for path in found
        if path.stem != "base" and (path.suffix == ".py" or (path / "__init__.py").exists())
    )


def key_problem(values: Mapping[str, Any], key: str) -> str | None:
    """Why no single value of the file has this dotted `key`; None where one has."""
    known = [name for name in leaves(values) if not name.startswith("ablate.variants.")]
    if key in known:
        return None
    if inside := [name for name in known if name.startswith(f"{key}.")]:
        return f"{key} is a section; give its values one by one, as in {inside[0]}"
    beside = [name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]]
    return unknown(key, beside or values, known)


def put(values: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """A copy of nested mappings with another value at their existing dotted `key`."""
    head, _, rest = key.partition(".")
    return {**values, head: put(values[head], rest, value) if rest else value}


def _raised(path: Path, result: T | None, problems: list[str]) -> T:
    """The `result`, or UserError with the `problems` of the file at `path`."""
    if result is None or problems:
        raise UserError([f"{path}: {problem}" for problem in problems])
    return result


def _parsed(
    raw: dict[str, Any], *, every: bool = False, method: bool = True, localizer: bool = False
) -> tuple[Params | None, list[str]]:
    """The params in `raw`, None where they cannot be, and every problem of the file.

    Of datasets, methods and localizers the chosen sections are checked, or `every` one.
    """
    values = leaves(raw)
    problems: list[str] = []
    file = validated(File, raw, "", problems)
    data, data_problems = _choice("dataset", raw, every)
    problems += data_problems
    chosen: Section | None = Section()
    if method:
        chosen, method_problems = _choice("method", raw, every)
        problems += method_problems
    localizers: dict[str, Section] = {}
    if localizer or every:
        localizers, localizer_problems = _localizers(raw, every)
        problems += localizer_problems
    if values.get("box.selection") == "val":
        problems += _val_problems(data, values.get("prepare.val_fraction"))
    if values.get("box.protocol") == "wsoleval" and values.get("box.normalise") == "ivr":
        problems.append(
            "box.protocol is 'wsoleval', which normalises in its own way; allowed: box.normalise: min_max"
        )
    if values.get("box.protocol") == "wsoleval" and values.get("input.test") == "center_crop":
        problems.append(
            "box.protocol is 'wsoleval', which sees the whole image; allowed: input.test: squash"
        )
    if values.get("train.trunk") == "frozen" and values.get("weights") == "none":
        problems.append(
            "train.trunk is 'frozen', which keeps the trunk as loaded, and weights is 'none'; "
            "allowed: tuned, or other weights"
        )
    problems += _schedule_problems(raw)
    if file is None or data is None or chosen is None:
        return None, problems
    own = {name: getattr(file, name) for name in File.model_fields}
    del own["datasets"], own["methods"]
    own["train"] = file.train.of(file.method)
    own["localizers"] = localizers
    return Params(**own, data=data, method_params=chosen), problems


def _val_problems(data: Section | None, val_fraction: object) -> list[str]:
    """Why no threshold can be chosen on `val`, as far as params.yaml says."""
    if not isinstance(data, DatasetSection):
        return []  # told with the dataset
    if val_fraction == 0 and not data.own_val:
        return [
            "box.selection is 'val', which needs held-out images; "
            "allowed: prepare.val_fraction > 0, or another box.selection"
        ]
    if reason := data.without_val_boxes():
        return [
            f"box.selection is 'val', which needs boxes on held-out images, and {reason}; "
            "allowed: another box.selection"
        ]
    return []


def _localizers(raw: dict[str, Any], every: bool) -> tuple[dict[str, Section], list[str]]:
    """The sections of the chosen localizer and of its teachers, by name, and the problems of all looked at."""
    found: dict[str, Section] = {}
    problems: list[str] = []
    name: object = raw.get("localizer")
    while name is not None and name not in found:
        section, more = _choice("localizer", {**raw, "localizer": name}, every)
        problems += [problem for problem in more if problem not in problems]
        if section is None:
            break
        found[str(name)] = section
        name = getattr(section, "teacher", None)
    return found, problems


def _secrets(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values are addresses that hold a secret, and what to do."""
    for key, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (problem := addresses.problem(text)):
                yield key, problem


def _choice(key: str, raw: dict[str, Any], every: bool) -> tuple[Section | None, list[str]]:
    """The section that `dataset` or `method` chooses, and the problems of what was looked at."""
    kind, chosen, known = f"{key}s", raw.get(key), names(f"{key}s")
    problems = []
    if isinstance(chosen, str) and chosen not in known:
        allowed = f"{', '.join(known)} (a file of pipeline/{kind})"
        other = _other_kind(key, chosen)
        hint = f"; {chosen} is a {other}: write `{other}: {chosen}`" if other else ""
        problems.append(wrong(key, chosen, allowed) + hint)
    given = raw.get(kind)
    if not isinstance(given, dict):
        return None, problems  # told with the whole file
    here = [f"{kind}.{name}" for name in known]
    for name in given:
        if name not in known and (other := _other_kind(key, name)):
            problems.append(f"{kind}.{name} is unknown; {name} is a {other}: see {other}s.{name}")
        elif name not in known:
            problems.append(unknown(f"{kind}.{name}", here))
    found: dict[str, Section | None] = {}
    for name in known if every else [name for name in known if name == chosen]:
        section: type[Section] = import_module(f"pipeline.{kind}.{name}").Params
        if name in given:
            found[name] = validated(section, given[name], f"{kind}.{name}", problems)
        else:
            problems.append(f"{kind}.{name} is missing; allowed: {described(section)}")
    return found.get(str(chosen)), problems


def _schedule_problems(raw: Mapping[str, Any]) -> list[str]:
    """Names in train.per_method that no method has."""
    train, known = raw.get("train"), [f"train.per_method.{name}" for name in names("methods")]
    table = train.get("per_method") if isinstance(train, dict) else None
    given = [f"train.per_method.{name}" for name in table] if isinstance(table, dict) else []
    return [unknown(name, known) for name in given if name not in known]


def _other_kind(key: str, name: object) -> str | None:
    """`method` or `localizer` where `name` is one of those and `key` is the other, as ddt once was a method."""
    others = (other for other in ("method", "localizer") if other != key)
    return next((other for other in others if name in names(f"{other}s")), None)


def _backbone_problems(raw: Mapping[str, Any]) -> list[str]:
    """An unknown backbone, or weights that there are not; imports PyTorch."""
    # Imported by name: stages that read params depend on the backbones only if they build one.
    backbones = import_module("pipeline.backbones")
    backbone, weights = raw.get("backbone"), raw.get("weights")
    if not isinstance(backbone, str):
        return []  # reported with the whole file
    problems: list[str] = backbones.problems(backbone, str(weights))
    return [*problems, *_missing_weights(weights), *_layer_problems(raw)]


def _missing_weights(weights: object) -> list[str]:
    """A file of weights that is not there, which no stage would ask for before it trains."""
    named = isinstance(weights, str) and weights not in ("none", "imagenet")
    if not named or not Path(str(weights)).suffix or project_path(str(weights)).is_file():
        return []  # a malformed name is reported with the whole file
    return [
        f"weights is {weights!r}, and there is no such file; allowed: none, imagenet, or a file"
    ]


def _layer_problems(raw: Mapping[str, Any]) -> list[str]:
    """A layer that the heatmap has no use for."""
    values = leaves(raw)
    name, layer = values.get("heatmap"), values.get("heatmaps.layer")
    point = ALIASES.get(str(layer), layer)
    if name not in ("cam", "scorecam") or point not in POINTS or point == "last":
        return []
    return [f"heatmaps.layer is {layer!r}, which {name} cannot use; allowed: last"]


def _changed(
    raw: Mapping[str, Any], variant: Variant, told: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The whole file's values as `variant` has them, and the problems of its `set`.

    A key in what the problems `told` already say of the file itself is no further problem.
    """
    broken = tuple(f"{problem.split()[0]}." for problem in told)
    values = {**raw, "method": variant.method, "backbone": variant.backbone or raw.get("backbone")}
    problems = []
    if variant.schedule is not None:
        try:
            own = raw["train"]["per_method"][variant.schedule]
            values = put(values, f"train.per_method.{variant.method}", own)
        except (KeyError, TypeError):
            allowed = "a method of train.per_method, or null"
            problems.append(wrong("schedule", variant.schedule, allowed))
    for key, value in variant.set.items():
        if key in ("method", "backbone"):
            problems.append(f"set: {key} has its own place beside `set`; write it there")
        elif key.partition(".")[0] in ("dataset", "datasets", "prepare", "ablate"):
            problems.append(
                f"set: {key} is one for all variants; change it in the file's main part"
            )
        elif problem := key_problem(raw, key):
            problems += [] if f"{key}.".startswith(broken) else [f"set: {problem}"]
        else:
            values = put(values, key, value)
    return values, problems
