"""What people look at: photographs with boxes and heatmaps, galleries, strips.

Every function returns a PIL image and `save` writes it; the same numbers give the same bytes. Boxes
are x0, y0, x1, y1, half-open edges in pixels of the image they are drawn on. Prediction green and
solid, ground truth red and dashed (thesis, figures 18 and 21): told apart without colour too, and
both visible where they coincide. Photographs are equally high; their widths follow their shapes.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.files import whole_file

Box = Sequence[float] | np.ndarray
Size = tuple[int, int]  # height, width
Colour = tuple[int, int, int]

GREEN, RED = (0, 214, 90), (255, 45, 60)
INK, GREY, PAPER = (31, 35, 40), (101, 109, 118), (255, 255, 255)
TEXT, GAP, MARGIN = 14, 4, 16  # pixels
TILE = (210, 420)
OPTIMIZED = 2 * 10**6  # pixels; above, a slightly larger file saves most of the time


def save(path: Path, image: Image.Image) -> None:
    """Write `image` as PNG, whole or not at all."""
    with whole_file(path) as partial:
        small = image.width * image.height <= OPTIMIZED
        image.save(partial, format="PNG", optimize=small, compress_level=9 if small else 1)


# --- one photograph ---------------------------------------------------------------------------


def panel(
    image: np.ndarray,
    heatmap: np.ndarray | None,
    box: Box | None,
    truth: Sequence[Box] | np.ndarray,
    caption: str,
    *,
    note: str = "",
    tile: Size = TILE,
) -> Image.Image:
    """The photograph beside itself under its heatmap, both with boxes, below a caption.

    image uint8 [H,W,3]; heatmap float [h,w] of any size in 0..1, or None (no second picture); box
    None or not finite: not drawn; truth [n,4], n may be 0. `caption` is the bold first line, `note`
    a grey second one; both are cut to the width. tile: the height of the photograph and its largest
    width; only one that would be wider is lower. A large tile has larger letters and thicker lines.
    """
    views = [_photograph(image, tile)]
    if heatmap is not None:
        views.append(_overlay(views[0], heatmap))
    for view in views:
        _draw_boxes(view, image.shape[:2], box, truth)
    return _captioned(views, caption, note, tile[0])


def strip(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    boxes: Mapping[str, Box | None] | None = None,
    truth: Sequence[Box] | np.ndarray = (),
    caption: str = "",
    tile: Size = TILE,
) -> Image.Image:
    """The photograph, then one picture per map side by side, each under its name.

    A float map [h,w] in 0..1 is a heatmap; a bool map [h,w] is a mask whose True cells are hidden
    (black, sharp edges). `boxes` names the predicted box of each map that has one.
    """
    photograph = _photograph(image, tile)
    views = {"image": photograph.copy()}
    for name, values in maps.items():
        views[name] = (_hidden if values.dtype == bool else _overlay)(photograph, values)
    cells = []
    for name, view in views.items():
        _draw_boxes(view, image.shape[:2], (boxes or {}).get(name), truth)
        cells.append(_captioned([view], "", name, tile[0]))
    return _captioned([_row(cells)], caption, "", cells[0].height, _text_size(tile[0]))


def gallery(panels: Sequence[Image.Image], columns: int, title: str = "") -> Image.Image:
    """`panels` row by row in `columns`, below a title and the legend of boxes and colours."""
    columns = max(1, min(columns, len(panels)))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    widths = [sum(panel.width + MARGIN for panel in row) - MARGIN for row in rows]
    heights = [max(panel.height for panel in row) for row in rows]
    legend = _legend()
    inner = max([*widths, legend.width])
    font = _font(TEXT + 4, bold=True)
    line = legend.height + 8
    stacked = bool(title) and font.getlength(title) + 2 * MARGIN + legend.width > inner
    top = MARGIN + line * (2 if stacked else 1) + 8
    sheet = Image.new("RGB", (inner + 2 * MARGIN, top + sum(heights) + MARGIN * len(rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 2), _fit(title, font, inner), fill=INK, font=font)
    left = MARGIN + (inner - legend.width if title and not stacked else 0)
    sheet.paste(legend, (left, MARGIN + (line if stacked else 0)))
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + MARGIN
        top += height + MARGIN
    return sheet


def choose(iou: np.ndarray, labels: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Which images to show: indices [≤ count] of the `best`, the `worst` and of `random` ones.

    iou [N], NaN where an image has no box: such images appear only among the random ones. Best and
    worst take each class once before any class twice, and share no image. Ties: the lower index.
    """
    with_box = np.flatnonzero(~np.isnan(iou))
    best = _classes_in_turn(with_box[np.argsort(-iou[with_box], kind="stable")], labels)
    best = best[: min(count, (len(with_box) + 1) // 2)]
    rest = with_box[~np.isin(with_box, best)]
    worst = _classes_in_turn(rest[np.argsort(iou[rest], kind="stable")], labels)[:count]
    random = np.random.default_rng(seed).choice(len(iou), min(count, len(iou)), replace=False)
    return {"best": best, "worst": worst, "random": np.sort(random)}


def _classes_in_turn(ranked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`ranked` reordered: every class's first image, then every class's second, …"""
    seen: dict[int, int] = {}
    turns = np.zeros(len(ranked), dtype=np.int64)
    for position, label in enumerate(labels[ranked].tolist()):
        turns[position] = seen.get(label, 0)
        seen[label] = int(turns[position]) + 1
    return ranked[np.argsort(turns, kind="stable")]


# --- drawing ----------------------------------------------------------------------------------


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same glyphs on every machine, many alphabets."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _turbo() -> np.ndarray:
    """The turbo colour map, uint8 [256,3]."""
    from matplotlib import colormaps

    return (np.asarray(colormaps["turbo"](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)


def _text_size(height: int) -> int:
    """Of the text above photographs of `height`, both in pixels."""
    return max(TEXT, round(TEXT * height / 420))


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` on one line, cut with an ellipsis so that it is at most `width` pixels long."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text) + 1)
    kept = bisect_right(lengths, width, key=lambda k: font.getlength(text[:k] + "…")) - 1
    return text[:kept].rstrip() + "…" if kept > 0 else ""


def _photograph(image: np.ndarray, tile: Size) -> Image.Image:
    """`image` as high as `tile`, small ones scaled up; lower if it would be wider than `tile`."""
    height, width = image.shape[:2]
    scale = min(tile[0] / height, tile[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)


def _overlay(photograph: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """The photograph in grey under the heatmap's colours, thinner where it is cold."""
    values = Image.fromarray(np.nan_to_num(heatmap.astype(np.float32)))
    scaled = np.asarray(values.resize(photograph.size, Image.Resampling.BILINEAR))
    heat = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    cover = Image.fromarray((80 + heat * 0.33).astype(np.uint8))  # the cold keeps its photograph
    grey = photograph.convert("L").convert("RGB")
    return Image.composite(Image.fromarray(_turbo()[heat]), grey, cover)


def _hidden(photograph: Image.Image, mask: np.ndarray) -> Image.Image:
    """The photograph with the mask's True cells black."""
    cells = Image.fromarray(mask.astype(np.uint8) * 255)
    black = Image.new("RGB", photograph.size)
    cover = cells.resize(photograph.size, Image.Resampling.NEAREST)
    return Image.composite(black, photograph, cover)


def _draw_boxes(
    view: Image.Image, size: Sequence[int], box: Box | None, truth: Sequence[Box] | np.ndarray
) -> None:
    """Draw boxes in pixels of an image of `size` (height, width) on `view`, in place."""
    if box is not None:
        _rectangle(view, size, box, GREEN, dash=0)
    for other in truth:
        _rectangle(view, size, other, RED, dash=9)


def _rectangle(
    view: Image.Image, size: Sequence[int], box: Box, colour: Colour, *, dash: int
) -> None:
    """A cased line just inside the box's edges, clipped to the view; `dash` 0 is solid."""
    edges = np.asarray(box, dtype=np.float64)
    if not np.isfinite(edges).all():
        return
    scale = np.array([view.width / size[1], view.height / size[0]] * 2)
    limit = np.array([view.width, view.height] * 2)
    x0, y0, x1, y1 = (edges * scale).round().clip(0, limit).astype(int).tolist()
    line = max(3 if min(view.size) > 100 else 2, round(min(view.size) / 140))
    x0, y0 = min(x0, view.width - line), min(y0, view.height - line)  # never thinner than its line
    x1, y1 = max(x1, x0 + line), max(y1, y0 + line)
    draw = ImageDraw.Draw(view, "RGBA")
    length = dash * max(line, 3) // 3 or max(view.size)
    across = [(x, min(x + length, x1)) for x in range(x0, x1, 2 * length)]
    down = [(y, min(y + length, y1)) for y in range(y0, y1, 2 * length)]
    sides = [(a, y, b, y + line) for a, b in across for y in (y0, y1 - line)]
    sides += [(x, a, x + line, b) for a, b in down for x in (x0, x1 - line)]
    for left, top, right, bottom in sides:  # dark casing: visible on any photograph and heatmap
        draw.rectangle((left - 1, top - 1, right, bottom), fill=(0, 0, 0, 100))
    for left, top, right, bottom in sides:
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)


def _captioned(
    views: Sequence[Image.Image], caption: str, note: str, height: int, size: int = 0
) -> Image.Image:
    """`views` in a row, top left, in a cell for views of `height`, below up to two lines of text.

    size: of the text in pixels, if not the one that suits the height.
    """
    row = _row(views)
    size = size or _text_size(height)
    lines = [(caption, _font(size, bold=True), INK)] if caption else []
    lines += [(note, _font(size), GREY)] if note else []
    step = size + 5
    top = len(lines) * step + (3 if lines else 0)
    cell = Image.new("RGB", (row.width, top + height), PAPER)
    draw = ImageDraw.Draw(cell)
    for number, (text, font, colour) in enumerate(lines):
        draw.text((0, number * step), _fit(text, font, row.width), fill=colour, font=font)
    cell.paste(row, (0, top))
    return cell


def _row(views: Sequence[Image.Image]) -> Image.Image:
    """`views` side by side, aligned at their tops."""
    width = sum(view.width + GAP for view in views) - GAP
    row = Image.new("RGB", (width, max(view.height for view in views)), PAPER)
    left = 0
    for view in views:
        row.paste(view, (left, 0))
        left += view.width + GAP
    return row


def _legend() -> Image.Image:
    """What green, red and the heatmap's colours mean."""
    size, sample = TEXT + 6, (22, 16)
    boxes = [Image.new("RGB", sample, (176, 176, 176)) for _ in range(2)]
    _rectangle(boxes[0], sample[::-1], (0, 0, *sample), GREEN, dash=0)
    _rectangle(boxes[1], sample[::-1], (0, 0, *sample), RED, dash=5)
    ramp = Image.fromarray(np.tile(_turbo()[None, ::3], (12, 1, 1)))
    pieces: list[Image.Image] = []
    names = ("prediction", "ground truth", "heatmap, low to high")
    for picture, name in zip((*boxes, ramp), names, strict=True):
        left = picture.width + 6
        piece = Image.new("RGB", (left + round(_font(TEXT).getlength(name)) + 8, size), PAPER)
        piece.paste(picture, (0, (size - picture.height) // 2))
        ImageDraw.Draw(piece).text((left, 1), name, fill=GREY, font=_font(TEXT))
        pieces.append(piece)
    return _row(pieces)
