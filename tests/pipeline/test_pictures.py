"""Pictures: where boxes land, that text stays inside, that nothing changes from run to run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import pictures
from pipeline.pictures import GREEN, INK, PAPER, RED

GREY = np.full((60, 120, 3), 128, np.uint8)  # wide: height and width cannot be swapped unseen
RAMP = np.linspace(0, 1, 5 * 9, dtype=np.float32).reshape(5, 9)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def where(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Half-open bounding box of a colour."""
    ys, xs = np.nonzero((pixels(image) == colour).all(2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_boxes_land_on_their_edges_scaled_with_the_image() -> None:
    shown = pictures.panel(GREY, None, (10, 20, 40, 50), [], "", tile=(120, 240))
    assert where(shown, GREEN) == (20, 40, 80, 100)
    shown = pictures.panel(GREY, None, None, [(100, 0, 120, 60)], "", tile=(120, 240))
    assert where(shown, RED) == (200, 0, 240, 120)


def test_both_pictures_of_a_panel_carry_the_boxes() -> None:
    shown = pictures.panel(GREY, RAMP, (10, 20, 40, 50), [], "", tile=(60, 120))
    left, right = pixels(shown)[:, :120], pixels(shown)[:, 124:244]
    assert ((left == GREEN).all(2) == (right == GREEN).all(2)).all()
    assert (left == GREEN).all(2).any()


@pytest.mark.parametrize(
    "box", [(-50, -50, 500, 500), (120, 60, 120, 60), (0, 0, 0, 0), (40, 10, 40, 50)]
)
def test_boxes_beyond_the_border_and_without_area_stay_visible(box: tuple[float, ...]) -> None:
    shown = pictures.panel(GREY, None, box, [], "", tile=(60, 120))
    assert (pixels(shown) == GREEN).all(2).any()


def test_a_box_that_is_not_finite_is_not_drawn() -> None:
    shown = pictures.panel(GREY, None, np.full(4, np.nan), [], "")
    assert not (pixels(shown) == GREEN).all(2).any()


def test_truth_stays_visible_on_an_equal_prediction() -> None:
    box = (10, 10, 100, 50)
    shown = pixels(pictures.panel(GREY, None, box, [box], ""))
    assert (shown == GREEN).all(2).any() and (shown == RED).all(2).any()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((8, 8), (100, 100)),
        ((400, 300), (100, 75)),
        ((100, 190), (100, 190)),
        ((40, 400), (20, 200)),
    ],
)
def test_photographs_are_equally_high_and_only_very_wide_ones_lower(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    shown = pictures.panel(image, None, None, [], "", tile=(100, 200))
    assert (pixels(shown) == 0).all(2).sum() == size[0] * size[1]
    assert shown.size == (size[1], 100)
    assert pictures.panel(image, RAMP, None, [], "").size[1] == 210


def test_a_large_photograph_has_larger_letters_and_thicker_lines() -> None:
    image = np.full((1400, 1400, 3), 128, np.uint8)
    for side, text, line in ((210, 14, 3), (1400, 47, 10)):
        shown = pixels(
            pictures.panel(image, None, (0, 0, 1400, 1400), [], "Wren", tile=(side, side))
        )
        assert shown.shape == (side + text + 8, side, 3)
        assert (shown[text + 8 + side // 2, : side // 2] == GREEN).all(1).sum() == line


@pytest.mark.parametrize("text", ["W" * 500, "word " * 100, "a\nb\n\nc", "…", ""])
def test_a_caption_never_reaches_the_edge(text: str) -> None:
    shown = pixels(pictures.panel(GREY, None, None, [], text, note=text, tile=(60, 90)))
    above = shown[:-60]
    assert (above[:, -1] == PAPER).all()


def test_a_long_caption_ends_in_an_ellipsis_and_a_short_one_is_whole() -> None:
    font = pictures._font(14)
    cut = pictures._fit("Black-footed Albatross", font, 100)
    assert cut.startswith("Black-foot") and cut.endswith("…")
    assert font.getlength(cut) <= 100
    assert pictures._fit("two\n  lines", font, 500) == "two lines"
    assert pictures._fit("anything", font, 1) == ""


def test_the_caption_is_there() -> None:
    shown = pictures.panel(GREY, None, None, [], "Wren", tile=(60, 120))
    assert (pixels(shown)[:-60] == INK).all(2).any()


def test_heatmaps_are_coloured_from_cold_to_hot() -> None:
    """Turbo over mid grey: blue above red at the cold end, red above blue at the hot one."""
    heat = np.zeros((60, 120), np.float32)
    heat[:, 90:] = 0.9
    heat[0, 0] = np.nan
    shown = pixels(pictures.panel(GREY, heat, None, [], "", tile=(60, 120))).astype(int)[:, 124:]
    assert (shown[:, 5] == shown[0, 5]).all()  # NaN is cold
    cold, hot = shown[30, 20], shown[30, 110]
    assert cold[2] > cold[1]
    assert hot[0] > hot[2] + 50


def test_masks_hide_their_true_cells_with_sharp_edges() -> None:
    mask = np.zeros((2, 4), bool)
    mask[1, 3] = True
    row = pixels(pictures.strip(GREY, {"mask": mask}, tile=(60, 120)))
    tile = row[-60:, 124:244]
    black = (tile == 0).all(2)
    assert black[30:, 90:].all() and black.sum() == 30 * 30


def test_a_strip_shows_image_and_maps_side_by_side() -> None:
    shown = pictures.strip(
        GREY, {"CAM": RAMP, "AHD": RAMP}, boxes={"AHD": (10, 10, 50, 50)}, tile=(60, 120)
    )
    assert shown.width == 3 * 120 + 2 * pictures.GAP
    x0, _, x1, _ = where(shown, GREEN)
    assert (x0, x1) == (2 * 124 + 10, 2 * 124 + 50)
    assert pictures.strip(GREY, {}, caption="Wren", tile=(60, 120)).height > 60


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_a_gallery_holds_every_panel(columns: int) -> None:
    colours = [(200, 10 * i, 0) for i in range(3)]
    panels = [Image.new("RGB", (300 + i, 40), colour) for i, colour in enumerate(colours)]
    sheet = pictures.gallery(panels, columns, "A title")
    for panel, colour in zip(panels, colours, strict=True):
        assert (pixels(sheet) == colour).all(2).sum() == panel.width * panel.height


def test_a_gallery_of_nothing_is_a_legend() -> None:
    assert pictures.gallery([], 3).width > 100


def test_the_legend_is_not_cut() -> None:
    legend = pixels(pictures._legend())
    assert (legend[:, -1] == PAPER).all()
    assert {(legend == c).all(2).any() for c in (GREEN, RED)} == {True}


def test_nothing_is_changed_in_place() -> None:
    image, heat = GREY.copy(), RAMP.copy()
    pictures.panel(image, heat, (0, 0, 50, 50), [(0, 0, 9, 9)], "a")
    pictures.strip(image, {"m": heat > 0.5, "h": heat}, boxes={"h": (0, 0, 9, 9)})
    assert (image == GREY).all() and (heat == RAMP).all()


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        panels = [pictures.panel(GREY, RAMP, (3, 4, 50, 60), [(1, 2, 30, 40)], "Wren", note="n")]
        pictures.save(tmp_path / name, pictures.gallery(panels, 2, "title"))
    written = (tmp_path / "a").read_bytes()
    assert written == (tmp_path / "b").read_bytes()
    chunks = (b"tEXt", b"tIME", b"iTXt", b"eXIf")
    assert written.startswith(b"\x89PNG") and not any(chunk in written for chunk in chunks)


def test_best_and_worst_take_every_class_once_before_any_twice() -> None:
    iou = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3, np.nan])
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    chosen = pictures.choose(iou, labels, 3, seed=0)
    # classes' best: image 0 (0.9), 2 (0.7), 5 (0.3); of the rest worst first: 3 (1), 4 (2), 1 (0)
    assert chosen["best"].tolist() == [0, 2, 5]
    assert chosen["worst"].tolist() == [3, 4, 1]


def test_images_without_boxes_are_only_drawn_at_random() -> None:
    chosen = pictures.choose(np.full(5, np.nan), np.zeros(5, int), 8, seed=0)
    assert {name: sorted(of.tolist()) for name, of in chosen.items()} == {
        "best": [],
        "worst": [],
        "random": [0, 1, 2, 3, 4],
    }


def test_few_images_are_shared_out() -> None:
    chosen = pictures.choose(np.array([0.2, 0.9, 0.5]), np.zeros(3, int), 8, seed=0)
    assert (chosen["best"].tolist(), chosen["worst"].tolist()) == ([1, 2], [0])


@pytest.mark.parametrize("n", [0, 1, 2, 7, 200])
def test_best_and_worst_share_no_image(n: int) -> None:
    iou = np.random.default_rng(n).random(n)
    chosen = pictures.choose(iou, np.arange(n) % 3, 8, seed=1)
    assert not set(chosen["best"].tolist()) & set(chosen["worst"].tolist())
    assert all(len(of) <= 8 and len(set(of.tolist())) == len(of) for of in chosen.values())
    again = pictures.choose(iou, np.arange(n) % 3, 8, seed=1)
    assert all((chosen[name] == again[name]).all() for name in chosen)
