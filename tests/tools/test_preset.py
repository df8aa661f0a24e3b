"""`wsol preset`: lists presets, or writes one whole or not at all."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline import params, presets
from pipeline.params import yamlfile
from stages import entry
from tools import preset, wsol

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    preset.apply("quick", {})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call the stage as from the shell; its output, or its errors after a failure with code 2."""

    def call(*arguments: str) -> list[str]:
        try:
            entry.run(lambda: wsol.run(["preset", *arguments]))
        except SystemExit as end:
            assert end.code == 2
            return capsys.readouterr().err.splitlines()
        return capsys.readouterr().out.splitlines()

    return call


def test_presets_are_listed_in_one_line_each(run) -> None:  # type: ignore[no-untyped-def]
    lines = run()
    assert [line.split()[0] for line in lines] == presets.names()
    assert all(presets.title(line.split()[0]) in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_a_preset_is_written_and_its_changes_are_told(run) -> None:  # type: ignore[no-untyped-def]
    lines = run("cub-resnet50", "-S", "train.epochs=3", "-S", "methods.ass.plug_points=[pool4, last]")  # fmt: skip
    assert lines[0] == f"params.yaml: cub-resnet50, {len(lines) - 1} values changed"
    assert "  dataset: 'synthetic' → 'cub'" in lines
    assert "  train.epochs: 10 → 3" in lines
    assert "  methods.ass.plug_points: [pool3, pool4, conv5_3] → [pool4, last]" in lines
    read = params.load()
    assert (read.dataset, read.backbone, read.train.epochs) == ("cub", "resnet50", 3)
    assert read.train.learning_rate == 0.001
    assert run("cub-resnet50", "-S", "train.epochs=3") == [
        "params.yaml: cub-resnet50, 1 value changed",
        "  methods.ass.plug_points: [pool4, last] → [pool3, pool4, conv5_3]",
    ]
    assert run("cub-resnet50", "-S", "train.epochs=3") == [
        "params.yaml: cub-resnet50, 0 values changed"
    ]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        (["nope"], [f"unknown preset 'nope'; allowed: {', '.join(presets.names())}"]),
        (["-S", "seed=1"], ["-S goes with a preset; single values are changed in params.yaml"]),
        (["birds", "-S", "seed"], ["-S 'seed' has no value; allowed: key=value"]),
        (["birds", "-S", "seed=[1"], ["-S seed: line 1: invalid YAML: expected ',' or ']', but "
         "got '<stream end>' while parsing a flow sequence; a text with brackets, quotes, # or : needs "
         "quotes of its own: -S \"seed='…'\""]),
        (["birds", "-S", "weights=a #1.pth"], ["-S weights is read as 'a', not as 'a #1.pth'; a text "
         "with brackets, quotes, # or : needs quotes of its own: -S \"weights='…'\""]),
        (["birds", "-S", "weights=my: w.pth"], ["-S weights is read as a section, not as 'my: w.pth'; "
         "a text with brackets, quotes, # or : needs quotes of its own: -S \"weights='…'\""]),
        (["birds", "-S", "sede=1", "-S", "train.epoch=2"],
         ["sede is unknown; did you mean seed?",
          "train.epoch is unknown; did you mean train.epochs?"]),
        (["birds", "-S", "train.learning_rate=1e-4", "-S", "seed=-1"],
         ["params.yaml: seed is -1; allowed: a whole number from 0 to 4294967295",
          "params.yaml: train.learning_rate is the text '1e-4'; allowed: a number > 0 "
          "(YAML reads 1e-4 as text: write 0.0001)"]),
        (["birds", "-S", "methods.ass.plug_points=[layer3]", "-S", "method=ass", "-S", "ablate.run=[core]"],
         ["params.yaml: methods.ass.plug_points is [layer3]; allowed: a list of stride2, stride4, stride8, "
          "stride16_early, stride16_late, last (or VGG16's names pool1, pool2, pool3, pool4, conv5_3), "
          "not layer3"]),
    ],
)  # fmt: skip
def test_a_mistake_changes_nothing(run, arguments: list[str], problems: list[str]) -> None:  # type: ignore[no-untyped-def]
    before = Path("params.yaml").read_bytes()
    assert run(*arguments) == [f"error: {problem}" for problem in problems]
    assert Path("params.yaml").read_bytes() == before
    assert list(Path().iterdir()) == [Path("params.yaml")]


def test_a_small_number_is_written_so_that_it_is_read_back(run) -> None:  # type: ignore[no-untyped-def]
    run("quick", "-S", "train.learning_rate=0.00001")
    assert params.load().train.learning_rate == 0.00001


@pytest.mark.parametrize(
    "name", ["Vögel 鳥", "[x] of y", "it's", "50% #1", "a: b", "{a}", "-", "a, b", "no"]
)
def test_any_path_can_be_given_with_quotes_of_its_own(name: str) -> None:
    quoted = f'"{name}"' if "'" in name else f"'{name}'"
    parsed = OverridesParser.create().parse_override(f"k={quoted}")  # how DVC reads its -S
    assert parsed.value() == name
    assert preset.overrides([f"datasets.folder.images={quoted}"]) == {
        "datasets.folder.images": name
    }


@pytest.mark.parametrize("text", ["/tmp/Vögel", "C:/x y", "a,b", "3", "[pool3, last]", "", "null"])
def test_what_needs_no_quotes_is_taken_as_before(text: str) -> None:
    assert preset.overrides([f"k={text}"]) == {"k": yamlfile.parse(text, "k")}
