"""The equations of each localizer against values worked out by hand or by another program."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from pipeline import backbones, localizers
from pipeline.localizers import c2am, psol, tokencut
from pipeline.localizers.border import border_map
from pipeline.localizers.ddt import Moments
from pipeline.localizers.foreground import marked, otsu, relabelled
from tests.pipeline.localizers.builders import (
    CHANNELS,
    CLASSES,
    Trunk,
    build,
    params,
    photographs,
    read,
    training,
)


def test_border_map_is_the_cosine_with_what_the_border_has() -> None:
    # Two channels; the border is (1, 0), the one inner cell (0, 1). μ = (8/9, 1/9); the border's F − μ is
    # (1/9, −1/9) and the inner cell's (−8/9, 8/9): cosines 1 and −1.
    F = torch.zeros(1, 2, 3, 3)
    F[0, 0] = 1
    F[0, :, 1, 1] = torch.tensor([0.0, 1.0])
    expected = torch.full((3, 3), -1.0)
    expected[1, 1] = 1
    torch.testing.assert_close(border_map(F)[0], expected)


def test_ddt_component_is_that_of_all_descriptors_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.2])[:, None, None]
    batches = [torch.randn(n, 3, 4, 6, generator=generator) * spread + 1 for n in (2, 3)]
    moments = Moments(3, torch.device("cpu"))
    for batch in batches:
        moments.add(batch)
    mean, first = moments.component()
    rows = torch.cat(batches).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    _, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    assert abs(abs(first.numpy() @ vectors[:, -1]) - 1) < 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_ddt_takes_the_border_for_background(sign: int) -> None:
    features = torch.zeros(1, 2, 5, 5)
    features[0, 0, 1:4, 1:4] = 1.0  # what the inside has in common
    moments = Moments(2, torch.device("cpu"))
    moments.add(sign * features)
    mean, first = moments.component()
    projected = torch.einsum("c,chw->hw", first.float(), sign * features[0])
    projected = projected - mean.float() @ first.float()
    assert (projected[1:4, 1:4] > 0).all() and projected[0, 0] < 0


def test_ddt_projects_with_the_transform_of_the_asked_class_and_is_not_cut_off() -> None:
    features, labels, _ = photographs(6)
    localizer = build("ddt")
    localizer.fit(training(features, labels))
    maps = read(localizer, features, torch.tensor([[0, 2]] * 6))
    for q, label in enumerate((0, 2)):
        moments = Moments(8, torch.device("cpu"))
        moments.add(features["last"][labels == label])
        mean, first = (x.float() for x in moments.component())
        centred = features["last"] - mean[:, None, None]
        expected = torch.einsum("bchw,c->bhw", centred, first)
        torch.testing.assert_close(maps[:, q], expected, rtol=1e-3, atol=1e-5)
    assert (maps < 0).any()


def test_tokencut_eigenvector_is_the_second_of_the_generalised_problem() -> None:
    rows = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(3))
    A = tokencut.affinity(rows, 0.1)
    v = tokencut.second_eigenvector(A)[0].numpy()
    D = np.diag(A[0].double().sum(1).numpy())
    _, vectors = scipy.linalg.eigh(D - A[0].double().numpy(), D)
    expected = vectors[:, 1]
    cosine = v @ expected / np.linalg.norm(v) / np.linalg.norm(expected)
    assert abs(abs(cosine) - 1) < 1e-6


def test_tokencut_edges_are_1_above_the_similarity_and_almost_0_below() -> None:
    rows = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 2.0]]])
    expected = torch.full((3, 3), 1e-5)
    expected[:2, :2], expected[2, 2] = 1, 1
    torch.testing.assert_close(tokencut.affinity(rows, 0.2)[0], expected)


def test_tokencut_foreground_holds_the_largest_entry() -> None:
    v = torch.tensor([[0.1, 0.2, -0.9, 0.1]]).double()  # mean −0.125
    deviation = v.std(correction=0)
    expected = -(v + 0.125) / deviation
    torch.testing.assert_close(tokencut.foreground(v), expected.float())
    torch.testing.assert_close(tokencut.foreground(-v), expected.float())


def test_c2am_rank_weights_by_hand() -> None:
    # Unit vectors at 0°, 60° and 90°: cosines .5 (0-1), 0 → .0005 (0-2), .866 (1-2).
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    z = torch.stack([angles.cos(), angles.sin()], 1)
    a, b, c = -math.log(0.5), -math.log(0.0005), -math.log(math.cos(math.pi / 6))
    decay = math.exp(-0.05)
    # Rank 0 is each image's most similar other: 1 for the first, 2 for the second, 1 for the third.
    expected = (a + decay * b + c + decay * a + c + decay * b) / 6
    assert c2am.alike(z, 0.05).item() == pytest.approx(expected, rel=1e-4)


def test_c2am_contrast_by_hand() -> None:
    # One image of two cells: (1, 0), where P = 1, and (0.6, 0.8), where P = 0: f and g have cosine 0.6.
    x = torch.tensor([[[1.0, 0.6]], [[0.0, 0.8]]]).permute(2, 0, 1).permute(1, 2, 0)[None]
    P = torch.tensor([[[[1.0, 0.0]]]])
    assert c2am.contrast(x, P, 0.05).item() == pytest.approx(-math.log(0.4), rel=1e-4)


@pytest.mark.parametrize("flipped", [False, True])
def test_c2am_object_is_not_the_border(flipped: bool) -> None:
    features, labels, _ = photographs(12)
    if flipped:
        features = {depth: x.amax() - x for depth, x in features.items()}
    localizer = build("c2am")
    localizer.fit(training(features, labels))
    localizer.eval()
    maps = read(localizer, features, labels[:, None])[:, 0]
    assert maps[:, 1:-1, 1:-1].mean() > maps[:, [0, -1]].mean()


def test_psol_boxes_are_x_y_width_height_in_shares() -> None:
    maps = torch.full((1, 4, 8), -1.0)
    maps[0, 1:3, 2:6] = 1.0
    x, y, width, height = psol.boxes_of(maps)[0].tolist()
    # The zero crossing of a bilinear ramp from −1 to 1 lies between the cells' centres: at the cells' edge.
    assert (x, y, width, height) == pytest.approx((0.25, 0.25, 0.5, 0.5), abs=1.5 / psol.SIDE)


def test_psol_empty_map_is_the_whole_image() -> None:
    assert psol.boxes_of(torch.full((1, 4, 8), -1.0))[0].tolist() == [0, 0, 1, 1]


def test_psol_answers_with_corners_inside_the_image() -> None:
    localizer = build("psol", teacher="border")
    localizer.bias.copy_(torch.logit(torch.tensor([0.25, 0.5, 0.5, 0.75])))
    features, _, _ = photographs(1)
    boxes = read(localizer, features, torch.zeros(1, 2, dtype=torch.int64))
    torch.testing.assert_close(boxes, torch.tensor([[[0.25, 0.5, 0.75, 1.0]] * 2]))


def test_psol_regression_finds_the_boxes_it_is_shown() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 6, generator=generator)
    weight = torch.randn(4, 6, generator=generator) * 0.3
    targets = (rows @ weight.T - 0.5).sigmoid()
    found = psol.regressed(rows, targets, params("psol", penalty=0.0))
    torch.testing.assert_close(found[0], weight, atol=0.02, rtol=0)
    torch.testing.assert_close(found[1], torch.full((4,), -0.5), atol=0.02, rtol=0)


def test_foreground_seeds_are_the_quantiles_cells() -> None:
    M = torch.arange(10.0)[None]
    # The 0.85 quantile of 0…9 is 7.65, the 0.3 quantile 2.7.
    assert marked(M, 0.85, 0.3)[0].tolist() == [-1, -1, -1, 0, 0, 0, 0, 0, 1, 1]


def test_foreground_constant_map_gives_no_seeds() -> None:
    assert not marked(torch.full((1, 10), 3.0), 0.85, 0.3).any()


def test_otsu_separates_two_groups() -> None:
    values = torch.cat([torch.linspace(0, 1, 50), torch.linspace(5, 6, 20)])
    assert 0.99 <= otsu(values).item() < 5
    # Most variance between: of 0, 0, 0, 4, 5 the threshold is between 0 and 4.
    assert 0 < otsu(torch.tensor([0.0, 0.0, 0.0, 4.0, 5.0])).item() < 4


def test_foreground_relabels_with_margins_around_otsus_threshold() -> None:
    g = torch.tensor([[-4.0, -3.9, -0.5, 0.3, 4.0, 4.1]])
    threshold, deviation = otsu(g).item(), g.std(correction=0).item()
    marks = relabelled(g, params("foreground", object_margin=0.5, background_margin=0.25))
    expected = [
        int(v > threshold + 0.5 * deviation) - int(v < threshold - 0.25 * deviation)
        for v in g[0].tolist()
    ]
    assert marks[0].tolist() == expected and set(expected) == {-1, 0, 1}


def test_foreground_self_training_recovers_what_the_seeds_missed() -> None:
    features, labels, masks = photographs(30)
    localizer = build("foreground")
    localizer.fit(training(features, labels))
    new, its, where = photographs(30, seed=5)
    found = read(localizer, new, its[:, None])[:, 0] > 0
    assert ((found & where).sum() / (found | where).sum()) > 0.95
    assert masks.any()


def test_foreground_of_the_dataset_has_one_classifier_and_of_the_class_several() -> None:
    features, labels, _ = photographs(12)
    for per, count in (("dataset", 1), ("class", CLASSES)):
        localizer = build("foreground", per=per)
        localizer.fit(training(features, labels))
        assert len(localizer.weight_deep.unique(dim=0)) == count


def test_foreground_averages_depths_in_units_of_their_deviation() -> None:
    features, labels, _ = photographs(12)
    whole = build("foreground")
    whole.fit(training(features, labels))
    parts = []
    for name in ("middle", "deep"):
        one = build("foreground", maps=[name])
        one.fit(training(features, labels))
        parts.append(read(one, features, labels[:, None]))
        assert parts[-1].std(correction=0).item() == pytest.approx(1, rel=1e-3)
    mean = (parts[0] + parts[1]) / 2
    torch.testing.assert_close(read(whole, features, labels[:, None]), mean)


def test_foreground_without_a_deep_map_reads_the_middle_one() -> None:
    trunk = Trunk()
    trunk.channels = {depth: n for depth, n in CHANNELS.items() if depth != "deep"}
    sections = {"foreground": params("foreground")}
    assert localizers.build("foreground", trunk, CLASSES, sections).depths == ("stride16_late",)


@pytest.mark.parametrize(
    ("name", "expected"), [("mobilenet_v2", "stride16_late"), ("resnet50", "stride16_early")]
)
def test_the_middle_map_is_not_the_last_one_under_another_name(name: str, expected: str) -> None:
    assert backbones.build(name).native == expected


def test_foreground_channels_that_never_vary_are_no_error() -> None:
    features, labels, where = photographs(30)
    features["stride16_late"][:, -1] = 0
    localizer = build("foreground", maps=["middle"])
    localizer.fit(training(features, labels))
    found = read(localizer, features, labels[:, None])[:, 0] > 0
    assert ((found & where).sum() / (found | where).sum()) > 0.95
