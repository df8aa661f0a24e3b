from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from pipeline import boxes
from pipeline.boxes.rules import two_stage
from pipeline.params import TwoStage
from tests.pipeline.boxes.box_references import plain_two_stage


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


@pytest.mark.parametrize("seeds", ["sides", "contour"])
@pytest.mark.parametrize("center", [True, False])
def test_it_is_the_plain_loop(seeds: Literal["sides", "contour"], center: bool) -> None:
    maps, features = make(5, 5, 7, 4)
    params = settings(seeds=seeds, center=center)
    picked, taus, found = two_stage.select(maps, features, params)
    for i in range(5):
        box, tau = plain_two_stage(maps[i].numpy(), features[i].numpy(), params) or ([], 0)
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
