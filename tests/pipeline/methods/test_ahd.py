"""AHD: expected pixels and the areas around them, by hand and against loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.layers import hiding
from pipeline.methods import ahd
from tests.pipeline.methods.builders import build, like, params

NO_PARTS: dict[str, Any] = {"attention_mask": False, "spatial_top": 0, "channel_top": 0}


def images() -> Tensor:
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def features(count: int = 12, channels: int = 6, size: tuple[int, int] = (7, 10)) -> Tensor:
    """Sparse non-negative maps, as behind a ReLU, with some high peaks."""
    generator = torch.Generator().manual_seed(7)
    return 8 * torch.rand(count, channels, *size, generator=generator) ** 6


# --- loops ------------------------------------------------------------------------------------


def loop_softmax(
    a: np.ndarray, temperature: float, unit: str, left_out: set[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """Eq. 13 of one map [H, W], as cell → probability."""
    left = [a[i, j] for i in range(a.shape[0]) for j in range(a.shape[1]) if (i, j) not in left_out]
    if not left:
        return {(i, j): 1 / a.size for i in range(a.shape[0]) for j in range(a.shape[1])}
    if unit == "maximum":
        temperature *= max(left)
    pixels = {
        (i, j): math.exp((a[i, j] - max(left)) / temperature)
        for i in range(a.shape[0])
        for j in range(a.shape[1])
        if (i, j) not in left_out
    }
    total = sum(pixels.values())
    return {pixel: value / total for pixel, value in pixels.items()}


def loop_region(turns: list[np.ndarray], side: int, temperature: float, unit: str) -> np.ndarray:
    """The union of squares around the expected pixel of each map in turn, bool [H, W]."""
    height, width = turns[0].shape
    hidden: set[tuple[int, int]] = set()
    for a in turns:
        s = loop_softmax(a, temperature, unit, hidden)
        row = round(sum(p * i for (i, j), p in s.items()))
        column = round(sum(p * j for (i, j), p in s.items()))
        for i in range(row - side // 2, row + side // 2 + 1):
            for j in range(column - side // 2, column + side // 2 + 1):
                if 0 <= i < height and 0 <= j < width:
                    hidden.add((i, j))
    region = np.zeros((height, width), dtype=bool)
    for pixel in hidden:
        region[pixel] = True
    return region


def loop_dual_mask(F: np.ndarray, p: Any) -> np.ndarray:
    """§4.2 of one image's features [C, H, W]: the kept pixels."""
    attention = F.mean(0)
    hidden = np.zeros(attention.shape, dtype=bool)
    if p.attention_mask:
        hidden |= attention >= p.hide_threshold * attention.max()
    if p.spatial_top:
        hidden |= loop_region(
            [attention] * p.spatial_top, p.block_size, p.temperature, p.temperature_unit
        )
    if p.channel_top:
        weights = []
        for a in F:
            s = loop_softmax(a, p.temperature, p.temperature_unit, set())
            weights.append(sum(a[pixel] * probability for pixel, probability in s.items()))
        top = np.argsort(weights)[::-1][: p.channel_top]
        hidden |= loop_region([F[c] for c in top], p.block_size, p.temperature, p.temperature_unit)
    return ~hidden


# --- Eq. 13, 14 -------------------------------------------------------------------------------


def test_spatial_softmax_by_hand() -> None:
    maps = torch.tensor([[[[0.0, math.log(2.0), 0.0]], [[1.0, 1.0, 1.0]]]])  # [1, 2, 1, 3]
    one = ahd.spatial_softmax(maps, 1.0, "activation")
    assert torch.allclose(one, torch.tensor([[[[0.25, 0.5, 0.25]], [[1 / 3] * 3]]]))
    half = ahd.spatial_softmax(maps, 0.5, "activation")  # twice the logits: weights 1, 4, 1
    assert torch.allclose(half[0, 0], torch.tensor([[1 / 6, 4 / 6, 1 / 6]]))


def test_spatial_softmax_leaves_out_hidden_pixels() -> None:
    maps = torch.tensor([[[[0.0, math.log(3.0), 50.0]]]])
    hidden = torch.tensor([[[[False, False, True]]]])
    left = ahd.spatial_softmax(maps, 1.0, "activation", hidden)
    assert torch.allclose(left, torch.tensor([[[[0.25, 0.75, 0.0]]]]))
    sharper = ahd.spatial_softmax(maps, 0.5, "activation", hidden)
    assert torch.allclose(sharper, torch.tensor([[[[0.1, 0.9, 0.0]]]]))
    assert torch.isfinite(
        ahd.spatial_softmax(maps, 0.1, "activation", torch.ones_like(hidden))
    ).all()


def test_channel_weights_by_hand() -> None:
    maps = torch.tensor([[[[0.0, math.log(2.0), 0.0]], [[1.0, 1.0, 1.0]]]])
    weights = ahd.channel_weights(maps, 1.0, "activation")
    assert torch.allclose(weights, torch.tensor([[0.5 * math.log(2.0), 1.0]]))


def test_the_default_temperature_is_a_share_of_each_maps_maximum() -> None:
    """Weights e^{a / (t · max)}: at t = 1/ln 2 the maximum weighs twice what a zero does."""
    t = 1 / math.log(2.0)
    maps = torch.tensor([[[[0.0, 8.0, 0.0]], [[0.0, 0.004, 0.0]]]])
    soft = ahd.spatial_softmax(maps, t, "maximum")
    assert torch.allclose(soft, torch.tensor([0.25, 0.5, 0.25]).expand(1, 2, 1, 3))
    weights = ahd.channel_weights(maps, t, "maximum")
    assert torch.allclose(weights, torch.tensor([[4.0, 0.002]]))
    row, column = ahd.expected_cell(
        ahd.spatial_softmax(torch.tensor([[[[9.0, 1.0, 1.0, 1.0, 1.0]]]]), 0.02, "maximum")
    )
    assert (row.item(), column.item()) == (0, 0)


def test_the_expected_cell_does_not_depend_on_the_maps_scale() -> None:
    """As printed it does: a map of small activations is answered with its middle."""
    peaked = torch.zeros(1, 1, 7, 9)
    peaked[0, 0, 1, 7] = 1.0
    for scale in (1e-3, 1.0, 1e3):
        found = ahd.expected_cell(ahd.spatial_softmax(peaked * scale, 0.02, "maximum"))
        assert [x.item() for x in found] == [1, 7]
    printed = ahd.expected_cell(ahd.spatial_softmax(peaked, 1.0, "activation"))
    assert [x.item() for x in printed] == [3, 4]


@pytest.mark.parametrize("value", [0.0, -2.0, 1e-38, 1e38])
def test_a_constant_map_of_any_value_is_uniform(value: float) -> None:
    soft = ahd.spatial_softmax(torch.full((1, 1, 2, 5), value), 0.02, "maximum")
    assert torch.allclose(soft, torch.full_like(soft, 0.1))


def test_a_second_points_temperature_is_of_what_is_left() -> None:
    """Beside a peak of 1000 the second one, of 1, would be flat at a share of the first."""
    attention = torch.zeros(1, 1, 3, 9)
    attention[0, 0, 1, 1], attention[0, 0, 1, 7] = 1000.0, 1.0
    twice = ahd.expected_region(attention.expand(-1, 2, -1, -1), 3, 0.02, "maximum")
    assert twice[0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0, 1, 1, 1]] * 3


def test_eq_14_as_printed_tells_no_channel_from_another() -> None:
    """Why the file departs from it: the mean of a distribution over w·h pixels is 1/(w·h)."""
    printed = ahd.spatial_softmax(features(), 1.0, "activation").mean((2, 3))
    assert torch.allclose(printed, torch.full_like(printed, 1 / 70))
    assert ahd.channel_weights(features(), 1.0, "activation").std(1).min() > 0.05


# --- expected pixels and areas ----------------------------------------------------------------


def test_expected_cell_by_hand() -> None:
    distribution = torch.zeros(1, 2, 3, 5)
    distribution[0, 0, 2, 4] = 1.0
    distribution[0, 1, 0, 0], distribution[0, 1, 2, 3] = 0.4, 0.6  # expected: row 1.2, column 1.8
    row, column = ahd.expected_cell(distribution)
    assert (row.tolist(), column.tolist()) == ([[2.0, 1.0]], [[4.0, 2.0]])


@pytest.mark.parametrize(
    ("row", "column", "side", "expected"),
    [
        (1, 2, 1, [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]),
        (1, 2, 3, [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]),
        (0, 4, 3, [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]),
        (2, 0, 5, [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]),
    ],
)
def test_area_is_a_square_clipped_at_the_border(
    row: int, column: int, side: int, expected: list[list[int]]
) -> None:
    hidden = ahd.area(torch.tensor([[float(row)]]), torch.tensor([[float(column)]]), (3, 5), side)
    assert hidden[0, 0].int().tolist() == expected


def test_a_second_point_is_sought_where_the_first_has_not_hidden() -> None:
    attention = torch.zeros(1, 1, 3, 9)
    attention[0, 0, 1, 1], attention[0, 0, 1, 7] = 60.0, 50.0
    once = ahd.expected_region(attention, 3, 1.0, "activation")
    twice = ahd.expected_region(attention.expand(-1, 2, -1, -1), 3, 1.0, "activation")
    assert once[0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 0]] * 3
    assert twice[0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0, 1, 1, 1]] * 3


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_hiding_everything_early_is_no_accident(temperature: float) -> None:
    region = ahd.expected_region(features()[:, :4], 31, temperature, "activation")
    assert region.all()


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("temperature", "unit"), [(0.3, "activation"), (1.0, "activation"), (0.05, "maximum")]
)
def test_expected_region_agrees_with_a_loop(
    side: int, count: int, temperature: float, unit: Any
) -> None:
    maps = features()[:, :count]
    region = ahd.expected_region(maps, side, temperature, unit)
    for image in range(len(maps)):
        expected = loop_region(list(maps[image].double().numpy()), side, temperature, unit)
        assert np.array_equal(region[image, 0].numpy(), expected)


# --- the mask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"attention_mask": False, "spatial_top": 0},
        {"attention_mask": False, "channel_top": 0, "temperature": 0.2},
        {"temperature": 1.0, "temperature_unit": "activation"},
        {"spatial_top": 0, "channel_top": 0},
        {"spatial_top": 2, "channel_top": 2, "block_size": 5},
        {"attention_mask": False, "spatial_top": 0, "channel_top": 3, "block_size": 1},
        NO_PARTS,
    ],
)
def test_dual_mask_agrees_with_a_loop(parts: dict[str, Any]) -> None:
    p = params("ahd", **parts)
    F = features()
    mask = ahd.dual_mask(F, hiding.attention_map(F), p, 1.0)
    for image in range(len(F)):
        assert np.array_equal(mask[image, 0].numpy(), loop_dual_mask(F[image].double().numpy(), p))


def test_every_part_hides_more() -> None:
    """Table 8 adds one part after another."""
    F = features()
    attention = hiding.attention_map(F)
    kept = torch.ones_like(attention, dtype=torch.bool)
    tables: list[dict[str, Any]] = [
        {"spatial_top": 0, "channel_top": 0},
        {"channel_top": 0},
        {},
        {"spatial_top": 2},
        {"spatial_top": 2, "channel_top": 2},
    ]
    for parts in tables:
        p = params("ahd", block_size=3, **parts)
        mask = ahd.dual_mask(F, attention, p, 1.0)
        assert not (mask & ~kept).any() and mask.sum() < kept.sum()
        kept = mask


def test_the_square_follows_the_grid() -> None:
    F = torch.zeros(1, 1, 9, 9)
    F[0, 0, 4, 4] = 1.0
    p = params("ahd", block_size=3, attention_mask=False, channel_top=0)
    hidden = [(~ahd.dual_mask(F, F, p, ratio)).sum().item() for ratio in (96 / 224, 1.0, 2.0)]
    assert hidden == [1, 9, 49]


def test_more_top_channels_than_channels_are_all() -> None:
    F = features(channels=2)
    few, many = (params("ahd", channel_top=n, spatial_top=0) for n in (2, 9))
    attention = hiding.attention_map(F)
    assert torch.equal(
        ahd.dual_mask(F, attention, few, 1.0), ahd.dual_mask(F, attention, many, 1.0)
    )


def test_features_are_multiplied_by_the_dual_mask_in_the_third_branch() -> None:
    model = build("ahd", dispersion_threshold=1e9, small_target=0.0, peak_proportion=1.0).train()
    F = features().requires_grad_()
    assert isinstance(model.params, ahd.Params)
    mask = ahd.dual_mask(F, hiding.attention_map(F), model.params, 1.0)
    hidden = model.on_feature("stride8", F, None, 1.0)
    assert torch.equal(hidden, F * mask)
    hidden.sum().backward()
    assert F.grad is not None and torch.equal(F.grad, mask.expand_as(F).float())
    assert model.statistics()["ahd/stride8/hidden"] == 1.0


def test_the_strategy_is_that_of_ass() -> None:
    F = features()
    model, ass = (build(name, dispersion_threshold=9.0).train() for name in ("ahd", "ass"))
    hidden, expected = (m.on_feature("stride8", F, None, 1.0) for m in (model, ass))
    _, branch = hiding.select(hiding.attention_map(F), model.params, 1.0)  # type: ignore[arg-type]
    assert 0 < (branch == 2).sum() < len(F)
    for image, one in enumerate(branch.tolist()):
        assert torch.equal(hidden[image], expected[image]) is (one != 2)


def test_the_mask_may_act_in_the_first_branch_too() -> None:
    F = features()
    model, ass = (build(name, dispersion_threshold=9.0).train() for name in ("ahd", "ass"))
    both = like(model, "ahd", dispersion_threshold=9.0, branches=[1, 3])
    hidden, in_three, plain = (m.on_feature("stride8", F, None, 1.0) for m in (both, model, ass))
    attention = hiding.attention_map(F)
    _, branch = hiding.select(attention, model.params, 1.0)  # type: ignore[arg-type]
    dual = ahd.dual_mask(F, attention, both.params, 1.0)  # type: ignore[arg-type]
    background = attention < 0.2 * attention.amax((2, 3), keepdim=True)
    first = branch == hiding.BRANCHES.index("dispersed")
    assert first.any() and not first.all()
    assert torch.equal(hidden[first], (F * (dual & ~background))[first])
    assert torch.equal(in_three[first], plain[first])
    assert torch.equal(hidden[~first], in_three[~first])


def test_other_points_are_left_alone() -> None:
    F = features()
    assert (
        build("ahd", plug_points=["stride16_early"]).train().on_feature("stride8", F, None, 1.0)
        is F
    )


def test_hiding_nothing_is_cam() -> None:
    model = build("ahd", dispersion_threshold=1e9, **NO_PARTS).train()
    assert torch.equal(model(images()).logits, like(model, "cam")(images()).logits)


def test_attention_mask_alone_is_ass() -> None:
    model = build("ahd", spatial_top=0, channel_top=0).train()
    assert torch.equal(model(images()).logits, like(model, "ass")(images()).logits)


def test_evaluation_is_cam() -> None:
    model = build("ahd").eval()
    assert torch.equal(model(images()).logits, like(model, "cam")(images()).logits)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("block_size", 4, "an odd number"),
        ("block_size", 0, "greater than or equal to 1"),
        ("temperature", 0.0, "greater than 0"),
        ("spatial_top", -1, "greater than or equal to 0"),
        ("branches", [2], r"\[3\] or \[1, 3\]"),
        ("branches", [1], r"\[3\] or \[1, 3\]"),
        ("branches", [], r"\[3\] or \[1, 3\]"),
        ("branches", [3, 3], r"\[3\] or \[1, 3\]"),
    ],
)
def test_params_out_of_range(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){field}.*{allowed}"):
        params("ahd", **{field: value})
