"""The report: numbers from files only, what stands beside what, and what it must admit."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import tables
from pipeline.errors import UserError
from pipeline.evaluation import metrics as table_of_metrics
from pipeline.evaluation import runs
from pipeline.evaluation.formats import per_image
from pipeline.evaluation.metrics import Figure
from pipeline.report import markdown, page, published
from tests.imports import ROOT
from tests.measured import measure
from tools import compare

GOOD = (0.9, 0.9, 0.9, 0.9)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A main CAM run, two methods and an ASS variant."""
    measure(tmp_path)
    measure(tmp_path / "ablation" / "all" / "methods-cam")
    measure(tmp_path / "ablation" / "all" / "methods-ass", "ass", iou=GOOD, missed=())
    measure(tmp_path / "ablation" / "all" / "methods-ahd", "ahd")
    measure(
        tmp_path / "ablation" / "all" / "positions_ass-conv5_3", "ass", iou=(0.9, 0.9, 0.9, 0.1)
    )
    return tmp_path


def written(metrics: Path, changes: dict | None = None) -> str:
    return page.markdown(runs.read(metrics, changes and in_all(changes)))


def in_all(changes: dict) -> dict:
    """The changes of variants that were run by the name `all`."""
    return {f"all/{key}": own for key, own in changes.items()}


def row(text: str, start: str) -> list[str]:
    """The cells of the first table row whose first cell is `start`."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == start:
            return cells
    raise AssertionError(f"no row {start}")


def section(text: str, heading: str) -> str:
    start = text.index(f"# {heading}")
    end = text.find("\n#", start + 5)
    return text[start : end if end > 0 else len(text)]


# --- reading ----------------------------------------------------------------------------------


def test_wrongness_per_image_follows_the_definitions(tmp_path: Path) -> None:
    measure(tmp_path, iou=(0.9, 0.5, 0.4, None), missed=(0, 3))
    rows = runs.read(tmp_path).main.images
    wrong = table_of_metrics.per_image(per_image.scored(rows, list(rows)))
    nan = float("nan")
    np.testing.assert_array_equal(wrong["top1_cls_err"], [1, 0, 0, 1])
    np.testing.assert_array_equal(wrong["top1_loc_err"], [1, 0, 1, nan])
    np.testing.assert_array_equal(wrong["gt_known_loc_err"], [0, 0, 1, nan])


def test_a_difference_is_the_one_that_compare_prints(metrics: Path) -> None:
    """CAM errs on images 2 and 3, ASS on none: −50, and no interval leaves −100 … 0."""
    results = runs.read(metrics)
    run, other = (results.variants[f"methods-{name}"] for name in ("ass", "cam"))
    delta = runs.difference(run, other, "gt_known_loc_err")
    compared = compare.compare(
        other.images, run.images, list(other.images), bootstrap=1000, seed=0
    )["gt_known_loc_err"]["difference"]
    assert delta == Figure(-50, compared.low, compared.high)
    assert delta.low == -100 and delta.high == 0


def test_the_published_cam_rows_are_said_to_contradict_each_other(metrics: Path) -> None:
    text = written(metrics)
    for number in (5, 9):
        beside = section(text, f"Table {number}.")
        assert "23.86 + 36.77 = 60.63" in beside and "66.05" in beside
    assert text.count("contradict each other") == 2


def test_a_reconstruction_is_called_one(metrics: Path) -> None:
    folder = metrics / "ablation" / "all" / "methods-mci"
    measure(folder, "mci")
    assert "MCI (reconstruction)" not in page.markdown(runs.read(metrics))
    values = json.loads((folder / "localization.json").read_text())
    (folder / "localization.json").write_text(json.dumps({**values, "reconstruction": True}))
    text = page.markdown(runs.read(metrics))
    assert (
        text.count("| MCI (reconstruction)") >= 2
    )  # in the study and beside the published figures


def test_without_the_same_images_a_difference_has_no_interval(metrics: Path) -> None:
    measure(metrics / "ablation" / "all" / "methods-ass", "ass", iou=GOOD[:3], missed=())
    results = runs.read(metrics)
    pair = results.variants["methods-ass"], results.variants["methods-cam"]
    assert runs.difference(*pair, "gt_known_loc_err") == Figure(-50.0)
    (metrics / "ablation" / "all" / "methods-cam" / "per_image.csv").unlink()
    pair = pair[0], runs.read(metrics).variants["methods-cam"]
    assert runs.difference(*pair, "gt_known_loc_err") == Figure(-50.0)


def test_variants_come_in_the_order_of_params_and_no_other(metrics: Path) -> None:
    changes: dict = {"methods-ass": {}, "methods-cam": {}, "rcam-wgap": {}}
    results = runs.read(metrics, in_all(changes))
    assert list(results.variants) == ["methods-ass", "methods-cam"]
    assert results.missing == ["rcam-wgap"]
    assert runs.read(metrics).missing == []


def test_who_is_compared_with_whom(metrics: Path) -> None:
    results = runs.read(metrics)
    cam, ass = results.variants["methods-cam"], results.variants["methods-ass"]
    assert results.baseline("methods", ass) is cam
    assert results.baseline("methods", cam) is None
    assert results.baseline("positions_ass", results.variants["positions_ass-conv5_3"]) is ass
    assert results.baseline("positions_ass", ass) is None
    measure(metrics / "ablation" / "all" / "methods-ahd", "ahd", backbone="resnet50")
    results = runs.read(metrics)
    assert results.baseline("methods", results.variants["methods-ahd"]) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "metrics/localization.json does not exist; `dvc repro evaluate` writes it"),
        ("{", "metrics/localization.json is not JSON"),
        ('{"dataset": "cub"}', "has no method, backbone, weights, seed, n; delete it and run"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("metrics").mkdir()
    if content is not None:
        Path("metrics/localization.json").write_text(content)
    with pytest.raises(UserError) as raised:
        runs.read(Path("metrics"))
    assert says in str(raised.value)


def test_columns_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,\n2,3\n")
    x, y = tables.columns(tmp_path / "a.csv").values()
    assert x.tolist() == [1, 2] and y[1] == 3 and y[0] != y[0]
    assert tables.columns(tmp_path / "absent.csv") == {}
    (tmp_path / "empty.csv").write_text("x,y\n")
    assert tables.columns(tmp_path / "empty.csv") == {}


# --- the thesis's tables ----------------------------------------------------------------------


def test_the_published_tables_are_whole() -> None:
    count: dict[int, int] = {}
    for printed in published.rows():
        count[printed.table] = count.get(printed.table, 0) + 1
    assert count == {1: 6, 2: 3, 3: 7, 4: 5, 5: 11, 6: 7, 7: 6, 8: 6, 9: 3, 10: 10}
    assert published.TITLES.keys() == count.keys()
    last = published.rows()[-1]
    assert (last.table, last.method, last.figures) == (
        10,
        "rcam",
        {"top1_cls_err": "24.06", "top1_loc_err": "38.09"},
    )


def test_every_row_with_a_variant_has_ours_and_every_table_its_cam() -> None:
    for printed in published.rows():
        assert not printed.variant or (printed.table, printed.variant) in published.VARIANTS
        backbones = {r.backbone for r in published.rows() if r.table == printed.table}
        cams = {
            r.backbone for r in published.rows() if (r.table, r.method) == (printed.table, "cam")
        }
        assert cams == backbones


def test_the_variants_beside_published_rows_are_in_params_yaml() -> None:
    """Also with the values that the published row's name says."""
    variants = yaml.safe_load((ROOT / "params.yaml").read_text())["ablate"]["variants"]
    assert set(published.VARIANTS.values()) <= set(variants)
    for (table, name), key in published.VARIANTS.items():
        points = variants[key]["set"].get(f"methods.{variants[key]['method']}.plug_points")
        if table in (1, 7) and points:
            assert set(points) == set(name.split("+")), key


def test_ilsvrc_tables_are_shown_beside_ilsvrc_only() -> None:
    assert list(published.tables("synthetic")) == [1, 2, 3, 5, 7, 8, 9, 10]
    assert list(published.tables("ilsvrc")) == list(range(1, 11))


def test_ours_stand_beside_the_row_of_their_change(metrics: Path) -> None:
    text = written(metrics)
    table = section(text, "Table 1")
    assert row(table, "ASS, conv5_3") == [
        *("ASS, conv5_3", "23.97", "25.0 (24.0–27.0)", "51.65", "50.0 (49.0–52.0)"),
        *("−14.4", "−25.0 (−75.0 to +0.0)"),
    ]
    assert row(table, "ASS, conv5_3+pool4")[2::2] == ["–", "–", "–"]
    assert row(section(text, "Table 3"), "ACoL")[1:4:2] == ["28.10", "54.08"]
    assert row(section(text, "Table 9"), "ADL") == ["ADL", "30.64", "–", "−6.1", "–"]


def test_ours_stand_beside_their_own_backbone(metrics: Path) -> None:
    measure(metrics / "ablation" / "all" / "methods-ahd", "ahd", backbone="resnet50")
    table = section(written(metrics), "Table 5")
    assert row(table, "AHD, vgg16")[2] == "–"
    assert row(table, "AHD, resnet50")[2] == "25.0 (24.0–27.0)"
    assert row(table, "CAM, vgg16")[2] == "25.0 (24.0–27.0)"
    assert row(section(written(metrics), "Table 7"), "AHD, conv5_3+pool4+pool3")[2] != "–"


def test_the_main_run_stands_for_its_method(tmp_path: Path) -> None:
    measure(tmp_path, "rcam")
    assert row(section(written(tmp_path), "Table 10"), "RCAM")[4] == "75.0 (74.0–77.0)"


def test_the_thesiss_eil_is_the_one_of_several_modules(metrics: Path) -> None:
    """25.23 and 42.54 are the errors of MEIL's paper; EIL at one place does not belong beside them."""
    measure(metrics / "ablation" / "all" / "methods-eil", "eil")
    assert row(section(written(metrics), "Table 10"), "EIL, multi-module")[1:3] == ["25.23", "–"]
    measure(metrics / "ablation" / "all" / "methods-meil", "eil", missed=())
    beside = row(section(written(metrics), "Table 10"), "EIL, multi-module")
    assert beside[1] == "25.23" and beside[2].startswith("0.0")


def test_only_the_thesiss_setting_is_marked_as_the_same(metrics: Path) -> None:
    text = written(metrics)
    assert "✓" not in text
    assert "not comparable with the published figures" in text
    like = {"dataset": "cub", "backbone": "vgg16", "weights": "imagenet", "n": 5794}
    measure(metrics, **like)
    measure(metrics / "ablation" / "all" / "methods-cam", **like)
    text = written(metrics)
    assert "CAM ✓" in text and "ASS ✓" not in text
    assert "not comparable with the published figures" not in text
    measure(metrics, **like | {"n": 126})
    measure(metrics / "ablation" / "all" / "methods-cam", **like | {"n": 126})
    assert "✓" not in written(metrics)


# --- the text ---------------------------------------------------------------------------------


def test_headline_and_centre_box(metrics: Path) -> None:
    text = section(written(metrics), "Errors")
    assert row(text, "GT-known localization error (↓)") == [
        *("GT-known localization error (↓)", "**50.0**", "49.0–52.0", "60.0"),
    ]
    assert "This run's boxes beat it" in text
    measure(metrics, iou=(0.1, 0.1, 0.1, 0.9))
    assert "boxes do not beat it" in section(written(metrics), "Errors")


def test_an_ablation_row_and_its_difference(metrics: Path) -> None:
    text = section(
        written(
            metrics,
            {
                "methods-cam": {},
                "methods-ass": {},
                "positions_ass-conv5_3": {"methods.ass.plug_points": ("conv5_3",)},
            },
        ),
        "ASS: where it is plugged in",
    )
    assert row(text, "conv5_3")[:4] == [
        *("conv5_3", "plug_points: [conv5_3]", "25.0 (24.0–27.0)", "50.0 (49.0–52.0)"),
    ]
    assert row(text, "conv5_3")[4].startswith("+50.0 (")
    assert row(text, "ASS (baseline)")[4] == "–"
    assert row(text, "CAM")[4].startswith("+75.0 (")


def test_a_verdict_per_method(metrics: Path) -> None:
    text = section(written(metrics), "Methods")
    assert "**AHD does not beat CAM on this data.**" in text
    assert "difference +0.0 (+0.0 to +0.0): no clear difference" in text
    assert "**ASS beats CAM in one of two figures on this data.**" in text
    assert "75.0 (74.0–77.0), difference −75.0 (−100.0 to −25.0): better" in text
    assert "**CAM" not in text


def test_without_an_interval_nothing_is_claimed(metrics: Path) -> None:
    (metrics / "ablation" / "all" / "methods-ass" / "per_image.csv").unlink()
    assert "**ASS does not beat CAM on this data.**" in written(metrics)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"selection": "fixed"}, "threshold 0.2, set beforehand"),
        ({"selection": "val", "threshold": 0.35}, "threshold 0.35, chosen on held-out training"),
        ({"selection": "two_stage", "fallbacks": 3}, "(3 of 4 images fell back to 0.2)"),
    ],
)
def test_how_the_threshold_was_chosen(tmp_path: Path, changed: dict, says: str) -> None:
    measure(tmp_path, **changed)
    assert says in section(written(tmp_path), "Notes")


def test_rows_with_other_boxes_say_so(metrics: Path) -> None:
    measure(metrics / "ablation" / "all" / "methods-rcam", "rcam", selection="two_stage")
    text = section(written(metrics), "Methods")
    assert row(text, "RCAM")[1] == "two_stage" and row(text, "ASS")[1] == "fixed 0.2"


def test_what_has_no_results_is_named_once_and_what_nobody_asked_for_is_not(metrics: Path) -> None:
    text = written(metrics, {"methods-cam": {}, "positions_ass-pool1": {}, "rcam-wgap": {}})
    assert text.count("No results yet: `positions_ass-pool1`, `rcam-wgap`.") == 1
    assert "masks" not in written(metrics, {"methods-cam": {}})


def test_results_of_a_name_that_is_no_longer_asked_for_are_left_out(metrics: Path) -> None:
    measure(metrics / "ablation" / "core" / "methods-cam", missed=())
    in_core = runs.read(metrics, {"core/methods-cam": {}}).variants["methods-cam"]
    in_all_ = runs.read(metrics, {"all/methods-cam": {}}).variants["methods-cam"]
    assert in_core.figure("top1_cls_err") != in_all_.figure("top1_cls_err")


def test_a_dataset_without_boxes(tmp_path: Path) -> None:
    measure(tmp_path, iou=(None, None), dataset="folder")
    measure(tmp_path / "ablation" / "all" / "methods-cam", iou=(None, None), dataset="folder")
    measure(
        tmp_path / "ablation" / "all" / "methods-ass", "ass", iou=(None, None), dataset="folder"
    )
    text = written(tmp_path)
    assert "no boxes" in text and "Centre box" not in text and "MaxBoxAcc" not in text
    assert row(section(text, "Table 1"), "CAM")[1:5] == ["23.86", "50.0 (49.0–52.0)", "66.05", "–"]
    assert "beat CAM" not in text


def test_nothing_but_the_main_run(tmp_path: Path) -> None:
    measure(tmp_path)
    text = written(tmp_path, {})
    assert "Ablation" not in text and "## Errors" in text


def test_pictures_are_linked_as_given(metrics: Path) -> None:
    text = page.markdown(runs.read(metrics), [("Best boxes", "report/best.jpg")])
    assert "![Best boxes](report/best.jpg)" in text and "dvc pull" not in text
    text = page.markdown(runs.read(metrics), [("Best boxes", "pictures/best.png")])
    assert "dvc pull" in text


def test_every_number_of_ours_is_in_a_file(metrics: Path) -> None:
    """Change one figure in one file: the report shows the new one, and the old one no more."""
    path = metrics / "ablation" / "all" / "methods-ahd" / "localization.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"top1_loc_err": 12.34}))
    line = row(section(written(metrics), "Methods"), "AHD")
    assert line[2] == "12.3 (74.0–77.0)"


def test_tidy_rows(metrics: Path) -> None:
    tidy = page.rows(runs.read(metrics))
    assert all(set(line) <= set(page.COLUMNS) for line in tidy)
    ours = [line for line in tidy if line.get("variant") == "ass" and line["source"] == "ours"]
    assert {line["figure"]: (line["value"], line["low"], line["high"]) for line in ours}[
        "gt_known_loc_err"
    ] == (0, -1, 2)
    theirs = [
        line
        for line in tidy
        if line["source"] == "published"
        and (line["study"], line["variant"]) == ("positions_ass", "conv5_3")
    ]
    assert [(line["table"], line["value"]) for line in theirs] == [(1, "23.97"), (1, "51.65")]
    assert {"centre_box"} == {line["variant"] for line in tidy if line["study"] == "baselines"}


# --- how numbers are written ------------------------------------------------------------------


def test_numbers() -> None:
    assert markdown.cell(Figure(37.44, 33.0, 42.06)) == "37.4 (33.0–42.1)"
    assert markdown.cell(Figure(37.44)) == "37.4"
    assert markdown.cell(None) == markdown.points(None) == markdown.interval(Figure(1)) == "–"
    assert markdown.points(Figure(-3.14, -6, 0.2)) == "−3.1 (−6.0 to +0.2)"
    assert markdown.points(Figure(2)) == "+2.0"


def test_a_table_is_markdown_and_plain_text() -> None:
    assert markdown.table(("a", "long"), [("x|y", "1"), ("z", "22")]).splitlines() == [
        "| a    | long |",
        "| ---- | ---: |",
        "| x\\|y |    1 |",
        "| z    |   22 |",
    ]


def test_changes_are_written_as_yaml_would() -> None:
    values = {"methods.rcam.recombine": False, "methods.a.plug_points": ("x", "y"), "seed": 1}
    assert markdown.change(values) == "recombine: false; plug_points: [x, y]; seed: 1"


def test_invalid_published_boxes_are_counted_and_named(tmp_path: Path) -> None:
    left_out = {f"bird/{i}.jpg": "nan 0 3 4" for i in range(5)}
    measure(tmp_path, invalid_boxes=left_out)
    text = page.markdown(runs.read(tmp_path))
    assert "5 published boxes enclose nothing" in text and "bird/2.jpg, …" in text
    measure(tmp_path)
    assert "enclose nothing" not in page.markdown(runs.read(tmp_path))
