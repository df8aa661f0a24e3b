"""Equations 10–12 and Algorithm 1: worked by hand, and against loops over pixels."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.layers import hiding
from pipeline.layers.cells import side_ratio

PUBLISHED = {
    "plug_points": ("stride8", "stride16_early", "stride16_late"),
    "hide_threshold": 0.8,
    "target_threshold": 0.3,
    "background_threshold": 0.2,
    "small_target": 0.2,
    "peak_proportion": 0.3,
    "dispersion_threshold": 40.0,
    "variance_weight": 1.0,
    "isolated_weight": 0.0,
    "min_peak_pixels": 4,
}
DISPERSED, PASSED, HIDDEN = range(3)


def strategy(**changes: object) -> hiding.Strategy:
    return hiding.Strategy.model_validate({**PUBLISHED, **changes})


def maps(*rows_of_each: list[list[float]]) -> Tensor:
    """Attention maps [B, 1, H, W] written out row by row."""
    return torch.tensor(rows_of_each)[:, None]


def random_attention(count: int = 40, size: tuple[int, int] = (7, 10)) -> Tensor:
    """Maps from flat to peaked, so that every branch is taken."""
    generator = torch.Generator().manual_seed(0)
    power = torch.linspace(0.2, 12, count)[:, None, None, None]
    return torch.rand(count, 1, *size, generator=generator) ** power


# --- Eq. 10 -----------------------------------------------------------------------------------


def test_attention_map_is_the_mean_over_channels() -> None:
    features = torch.tensor([[[[1.0, 2.0, 0.0]], [[3.0, 0.0, 0.0]]]])  # [1, 2, 1, 3]
    assert hiding.attention_map(features).tolist() == [[[[2.0, 1.0, 0.0]]]]


def test_attention_map_sums_half_precision_in_float32() -> None:
    features = torch.ones(1, 2, 3, 5, dtype=torch.bfloat16)
    features[:, 1] = 1.0078125  # the next number bfloat16 has
    assert torch.all(hiding.attention_map(features) == 1.00390625)


def test_attention_map_is_a_constant_to_the_gradient() -> None:
    assert not hiding.attention_map(torch.ones(1, 2, 3, 5, requires_grad=True)).requires_grad


# --- Eq. 11 -----------------------------------------------------------------------------------


def test_drop_mask_hides_what_reaches_the_share_of_the_maximum() -> None:
    attention = maps([[0.0, 4.0, 8.0], [7.9, 10.0, 8.1]], [[1.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    assert hiding.drop_mask(attention, 0.8)[:, 0].tolist() == [
        [[True, True, False], [True, False, False]],
        [[False, False, True], [True, True, True]],
    ]


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_drop_mask_agrees_with_a_loop(threshold: float) -> None:
    attention = random_attention(8)
    mask = hiding.drop_mask(attention, threshold)
    for image in range(len(attention)):
        l_max = max(attention[image].flatten().tolist())
        for row in range(7):
            for column in range(10):
                l_i = attention[image, 0, row, column].item()
                assert mask[image, 0, row, column].item() is not (l_i >= threshold * l_max)


# --- Eq. 12 -----------------------------------------------------------------------------------


def loop_dispersion(hidden: np.ndarray, mu1: float, mu2: float) -> float:
    """Eq. 12 of one map, bool [H, W], pixel by pixel."""
    height, width = hidden.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if hidden[y, x]]
    if not pixels:
        return 0.0
    isolated = sum(
        not any(
            (y + dy, x + dx) in pixels
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy, dx) != (0, 0)
        )
        for y, x in pixels
    )
    ys, xs = zip(*pixels, strict=True)
    return mu1 * float(np.var(xs) + np.var(ys)) + mu2 * isolated


def test_dispersion_by_hand() -> None:
    corners = torch.tensor([[1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]]).bool()
    # x: 0, 4, 0, 4 → variance 4; y: 0, 0, 2, 2 → variance 1; all four stand alone
    assert hiding.dispersion(corners[None, None], 1.0, 0.0).tolist() == [5.0]
    assert hiding.dispersion(corners[None, None], 2.0, 3.0).tolist() == [22.0]


def test_a_diagonal_neighbour_is_a_neighbour() -> None:
    hidden = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1]]).bool()
    assert hiding.dispersion(hidden[None, None], 0.0, 1.0).tolist() == [1.0]


@pytest.mark.parametrize(("side", "expected"), [(14, 32.5), (28, 130.5)])
def test_dispersion_of_a_full_map(side: int, expected: float) -> None:
    full = torch.ones(1, 1, side, side, dtype=torch.bool)
    assert hiding.dispersion(full, 1.0, 1.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("size", [(7, 10), (1, 6), (28, 14)])
def test_dispersion_agrees_with_a_loop(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    density = torch.linspace(0, 1, 9)[:, None, None, None]  # from nothing hidden to everything
    hidden = torch.rand(9, 1, *size, generator=generator) < density
    expected = [loop_dispersion(h[0].numpy(), 0.7, 1.3) for h in hidden]
    assert hiding.dispersion(hidden, 0.7, 1.3).tolist() == pytest.approx(expected, rel=1e-5)


# --- Algorithm 1 ------------------------------------------------------------------------------


def loop_select(attention: np.ndarray, p: hiding.Strategy) -> tuple[np.ndarray, int]:
    """Algorithm 1 of one map, float32 [H, W]: the kept pixels and the branch."""
    l_max = attention.max()
    peak = attention >= np.float32(p.hide_threshold) * l_max
    background = attention < np.float32(p.background_threshold) * l_max
    a, b = peak.sum(), attention.size
    d = (attention >= np.float32(p.target_threshold) * l_max).sum()
    v = loop_dispersion(peak, p.variance_weight, p.isolated_weight)
    if a >= p.min_peak_pixels and v >= p.dispersion_threshold:
        return ~(peak | background), DISPERSED
    if d / b < p.small_target or a / d > p.peak_proportion:
        return np.ones_like(peak), PASSED
    return ~peak, HIDDEN


@pytest.mark.parametrize("isolated_weight", [0.0, 0.5])
def test_select_agrees_with_a_loop(isolated_weight: float) -> None:
    params = strategy(dispersion_threshold=9.0, isolated_weight=isolated_weight)
    attention = random_attention()
    mask, branch = hiding.select(attention, params, 1.0)
    assert mask.shape == attention.shape and mask.dtype == torch.bool
    assert set(branch.tolist()) == {DISPERSED, PASSED, HIDDEN}
    for image, one in enumerate(attention):
        expected_mask, expected_branch = loop_select(one[0].numpy(), params)
        assert branch[image].item() == expected_branch
        assert np.array_equal(mask[image, 0].numpy(), expected_mask)


def test_select_by_hand() -> None:
    broad = [[0.0, 0.4, 0.4, 0.4], [0.1, 0.4, 1.0, 0.4]]  # a/d = 1/6, d/b = 6/8
    peaked = [[0.0, 0.0, 0.4, 0.9], [0.0, 0.0, 0.4, 1.0]]  # a/d = 2/4
    small = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]  # d/b = 1/8
    spread = [[1.0, 0.4, 0.1, 1.0], [1.0, 0.4, 0.1, 1.0]]  # Var(X) + Var(Y) = 2.25 + 0.25
    mask, branch = hiding.select(
        maps(broad, peaked, small, spread), strategy(dispersion_threshold=2.5), 1.0
    )
    assert branch.tolist() == [HIDDEN, PASSED, PASSED, DISPERSED]
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 1, 1], [1, 1, 0, 1]],
        [[1, 1, 1, 1], [1, 1, 1, 1]],
        [[1, 1, 1, 1], [1, 1, 1, 1]],
        [[0, 1, 0, 0], [0, 1, 0, 0]],
    ]


def test_too_few_peak_pixels_are_no_dispersion() -> None:
    attention = maps([[1.0, 0.4, 0.4, 0.4, 0.4, 1.0, 0.4, 0.4]])
    for least, expected in ((2, DISPERSED), (3, HIDDEN)):
        params = strategy(min_peak_pixels=least, dispersion_threshold=6.0)
        assert hiding.select(attention, params, 1.0)[1].tolist() == [expected]


def test_dispersed_goes_before_small() -> None:
    attention = torch.zeros(1, 1, 9, 12)
    attention[0, 0, ::8, ::11] = 1.0  # four corners: d/b = 4/108, variance 16 + 30.25
    assert hiding.select(attention, strategy(), 1.0)[1].tolist() == [DISPERSED]
    assert hiding.select(attention, strategy(dispersion_threshold=47.0), 1.0)[1].tolist() == [
        PASSED
    ]


def test_thresholds_at_their_own_value_do_not_pass() -> None:
    """Algorithm 1 says d/b below and a/d above: equality goes on to hiding."""
    attention = maps([[0.5, 0.5, 1.0, 0.5, 0.5], [0.0] * 5])  # d/b = 1/2, a/d = 1/5
    params = strategy(small_target=0.5, peak_proportion=0.2)
    assert hiding.select(attention, params, 1.0)[1].tolist() == [HIDDEN]


def test_another_peak_mask_acts_in_the_third_branch_only() -> None:
    params = strategy(dispersion_threshold=9.0)
    attention = random_attention()
    nothing = torch.zeros_like(attention, dtype=torch.bool)
    plain, branch = hiding.select(attention, params, 1.0)
    mask, same = hiding.select(attention, params, 1.0, peak_mask=nothing)
    assert torch.equal(branch, same)
    assert not mask[branch == HIDDEN].any()
    assert torch.equal(mask[branch != HIDDEN], plain[branch != HIDDEN])


def test_another_mask_in_the_first_branch_is_joined_with_the_background() -> None:
    params = strategy(dispersion_threshold=9.0)
    attention = random_attention()
    corner = torch.ones_like(attention, dtype=torch.bool)
    corner[:, :, 0, 0] = False
    plain, branch = hiding.select(attention, params, 1.0)
    mask, same = hiding.select(attention, params, 1.0, dispersed_mask=corner)
    assert torch.equal(branch, same)
    background = attention < 0.2 * attention.amax((2, 3), keepdim=True)
    first = branch == DISPERSED
    assert torch.equal(mask[first], (corner & ~background)[first])
    assert torch.equal(mask[~first], plain[~first])


@pytest.mark.parametrize("times", [2, 3])
def test_a_finer_grid_takes_the_same_branches(times: int) -> None:
    """The published numbers belong to 224 px: a map of twice the side takes four times of each."""
    params = strategy(dispersion_threshold=9.0, min_peak_pixels=3)
    attention = random_attention()
    branch = hiding.select(attention, params, 1.0)[1]
    finer = attention.repeat_interleave(times, 2).repeat_interleave(times, 3)
    assert set(branch.tolist()) == {DISPERSED, PASSED, HIDDEN}
    same = hiding.select(finer, params, float(times))[1] == branch
    # Within a cell positions spread too, (times² − 1)/12 each: a map at the threshold may cross it.
    assert same.sum() >= len(same) - 1
    assert not torch.equal(hiding.select(finer, params, 1.0)[1], branch)


@pytest.mark.parametrize(("side", "cells"), [(224, 14), (96, 6), (160, 10), (448, 28)])
def test_the_first_branch_can_be_taken_at_every_input_size(side: int, cells: int) -> None:
    """Two far ends are dispersed; unscaled, no map of 6 × 6 reaches the published 40."""
    ends = torch.full((1, 1, cells, cells), 0.5)
    ends[..., 0, :], ends[..., -1, :] = 1.0, 1.0
    ratio = side_ratio(side, side)
    assert hiding.select(ends, strategy(), ratio)[1].tolist() == [DISPERSED]
    middle = torch.full((1, 1, cells, cells), 0.5)
    middle[..., cells // 2, cells // 2] = 1.0
    assert hiding.select(middle, strategy(), ratio)[1].tolist() == [HIDDEN]


@pytest.mark.parametrize("axis", [2, 3])
def test_flipping_the_map_flips_the_mask(axis: int) -> None:
    params = strategy(dispersion_threshold=9.0, isolated_weight=0.5)
    attention = random_attention()
    mask, branch = hiding.select(attention, params, 1.0)
    flipped, same = hiding.select(attention.flip(axis), params, 1.0)
    assert torch.equal(branch, same) and torch.equal(flipped, mask.flip(axis))


def test_images_do_not_see_each_other() -> None:
    params, attention = strategy(dispersion_threshold=9.0), random_attention()
    mask, branch = hiding.select(attention, params, 1.0)
    for image in range(len(attention)):
        one, its = hiding.select(attention[image : image + 1], params, 1.0)
        assert torch.equal(one, mask[image : image + 1]) and its.tolist() == [branch[image]]


def test_a_map_of_zeros_is_passed() -> None:
    mask, branch = hiding.select(torch.zeros(1, 1, 5, 8), strategy(), 1.0)
    assert branch.tolist() == [PASSED] and mask.all()


# --- params and counters ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hide_threshold", 1.1),
        ("background_threshold", -0.1),
        ("dispersion_threshold", -1.0),
        ("min_peak_pixels", 0),
        ("background_threshold", 0.4),  # above target_threshold
        ("plug_points", ("stride8", "stride8")),
    ],
)
def test_params_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        strategy(**{field: value})


def test_counters_are_shares_of_images_and_start_anew() -> None:
    counter = hiding.BranchCounter(("stride8", "stride16_early"))
    counter.add("stride16_early", torch.tensor([0, 2, 2, 1]))
    counter.add("stride16_early", torch.tensor([2, 2, 2, 2]))
    assert counter.fractions("ass") == {
        "ass/stride16_early/dispersed": 0.125,
        "ass/stride16_early/passed": 0.125,
        "ass/stride16_early/hidden": 0.75,
    }
    assert counter.fractions("ass") == {}
    assert not counter.state_dict()
