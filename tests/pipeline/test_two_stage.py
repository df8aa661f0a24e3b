import itertools
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline import boxes, two_stage
from pipeline.params import TwoStage
from tests.pipeline.box_references import EIGHT


def settings(**changes: Any) -> TwoStage:
    values = {"step": 0.05, "min_seeds": 4, "seeds": "sides", "center": True}
    return TwoStage(**(values | changes))


def make(batch: int, h: int, w: int, scale: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Upsampled maps [B, h · scale, w · scale] and features [B, 6, h, w] that go with them."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(batch, h, w, generator=generator)
    features = torch.rand(batch, 6, h, w, generator=generator) + raw[:, None]
    maps = boxes.normalise(boxes.resize(raw, (h * scale, w * scale)))
    return maps, features


def plain(
    values: np.ndarray, features: np.ndarray, params: TwoStage
) -> tuple[list[int], float] | None:
    """Thesis §5.4.3 and Eq. 22, one threshold, one seed and one position after the other."""
    from scipy import ndimage

    height, width = values.shape
    _, h, w = features.shape
    vectors = features.astype(np.float64)
    if params.center:
        vectors = vectors - vectors.mean(axis=(1, 2), keepdims=True)
    best = None
    for tau in np.arange(params.step, 1 - 1e-9, params.step):
        label, _ = ndimage.label(values >= tau * values.max(), structure=EIGHT)
        mask = label == 1 + np.bincount(label.ravel())[1:].argmax()
        ys, xs = np.nonzero(mask)
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        cells = set()
        for y, x in zip(ys, xs, strict=True):
            if params.seeds == "sides":
                holds = y in (y0, y1 - 1) or x in (x0, x1 - 1)
            else:
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                holds = not all(
                    0 <= v < height and 0 <= u < width and mask[v, u] for v, u in around
                )
            if holds:
                cells.add((y * h // height, x * w // width))
        if len(cells) < params.min_seeds:
            continue
        similarity = np.zeros((h, w))
        for seed in cells:
            A = vectors[:, seed[0], seed[1]]
            for i, j in itertools.product(range(h), range(w)):
                P = vectors[:, i, j]
                similarity[i, j] += A @ P / (np.linalg.norm(A) * np.linalg.norm(P)) / len(cells)
        if best is None or similarity.var() < best[0] * (1 - 1e-5):
            best = (similarity.var(), [x0, y0, x1, y1], tau)
    return best[1:] if best else None


@pytest.mark.parametrize("seeds", ["sides", "contour"])
@pytest.mark.parametrize("center", [True, False])
def test_it_is_the_plain_loop(seeds: Literal["sides", "contour"], center: bool) -> None:
    maps, features = make(5, 5, 7, 4)
    params = settings(seeds=seeds, center=center)
    picked, taus, found = two_stage.select(maps, features, params)
    for i in range(5):
        box, tau = plain(maps[i].numpy(), features[i].numpy(), params) or ([], 0)
        assert found[i]
        assert picked[i].tolist() == box
        assert taus[i].item() == pytest.approx(tau)


def test_batch_of_one_and_of_many_agree() -> None:
    maps, features = make(6, 4, 6, 5, seed=3)
    together = two_stage.select(maps, features, settings())
    for i in range(6):
        alone = two_stage.select(maps[i : i + 1], features[i : i + 1], settings())
        assert all((a[0] == b[i]).all() for a, b in zip(alone, together, strict=True))


def test_too_few_seeds_is_not_found() -> None:
    maps, features = make(2, 4, 6, 5)
    _, _, found = two_stage.select(maps, features, settings(min_seeds=100))
    assert found.tolist() == [False, False]


def test_equal_thresholds_go_to_the_lower_one() -> None:
    values = torch.zeros(1, 8, 12)
    values[0, 2:6, 3:9] = 1  # the same box at every threshold
    features = torch.rand(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    picked, taus, found = two_stage.select(values, features, settings())
    assert picked.tolist() == [[3, 2, 9, 6]]
    assert taus.item() == pytest.approx(0.05) and found.item()


def test_the_box_on_the_border_between_two_textures_wins() -> None:
    # A disc of another texture; the heatmap peaks inside it and falls off beyond its border.
    h, w = 14, 20
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    far = ((y - 6.5) ** 2 + (x - 9.5) ** 2).sqrt()
    inside = (far < 5).float()
    blend = torch.sigmoid((5 - far) * 1.5)
    features = torch.stack([blend, 1 - blend, torch.ones_like(blend) * 0.1])[None]
    maps = boxes.normalise(boxes.resize((10 - far).clamp_min(0)[None], (h * 8, w * 8)))
    picked, _, _ = two_stage.select(maps, features, settings())
    ys, xs = inside.nonzero().unbind(1)
    real = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * 8
    assert (picked[0] - real).abs().max() <= 12


def test_candidates_stop_below_one() -> None:
    assert two_stage.candidates(0.05).tolist() == pytest.approx([0.05 * k for k in range(1, 20)])
    assert two_stage.candidates(0.3).tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert two_stage.candidates(0.5).tolist() == [0.5]


def test_contrast_of_mean_similarities() -> None:
    P = torch.tensor([[[1.0, 0.0, 1.0]], [[1.0, 1.0, -1.0]]])  # one channel: vectors ±1 and 0
    seeds = torch.tensor([[[1.0, 0, 0], [1, 0, 1]], [[1, 0, 1], [0, 0, 1]]])
    # image 0: maps (1, 0, 1) twice; image 1: seeds cancel out; (−1, −1, 1)
    assert two_stage.contrast(seeds, P).flatten().tolist() == pytest.approx(
        [2 / 9, 2 / 9, 0, 8 / 9]
    )


def test_features_of_no_length_are_like_nothing() -> None:
    assert two_stage.unit_vectors(torch.zeros(1, 3, 2, 2), center=True).isfinite().all()
