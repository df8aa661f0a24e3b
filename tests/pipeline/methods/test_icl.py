"""ICL, as reconstructed: regions, contrast and consistency by hand."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from pipeline.methods import icl
from tests.pipeline.methods.builders import build, params

IMAGES, LABELS = torch.randn(2, 3, 32, 48), torch.tensor([4, 0])


def test_regions_by_hand() -> None:
    attention = torch.tensor([[[[0.0, 0.15, 0.5, 0.79, 0.8, 1.0]]]])
    seen = icl.regions(attention, params("icl"))  # peak 0.8, foreground 0.5, background 0.15
    assert [region.long().flatten().tolist() for region in seen] == [
        [0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ]


def test_a_mean_under_a_mask_by_hand() -> None:
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 4.0], [6.0, 8.0]]]])
    mask = torch.tensor([[[[True, False], [True, False]]]])
    assert icl.masked_mean(features, mask).tolist() == [[3.0, 4.0]]
    assert icl.masked_mean(features, torch.zeros_like(mask)).tolist() == [[0.0, 0.0]]


def test_contrast_by_hand() -> None:
    foreground = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    dropped = torch.tensor([[3.0, 4.0], [0.0, 1.0]])  # 5 and 1 away
    background = torch.tensor([[3.0, 1.0], [0.0, 4.0]])  # 3 and 3 away
    assert icl.contrast(foreground, dropped, background, 1.0).tolist() == [3.0, 0.0]


def test_early_attention_outside_the_late_foreground_by_hand() -> None:
    early = torch.tensor([[[[0.5, 1.0], [0.2, 0.4]]]])
    late = torch.tensor([[[[True], [False]]]])
    expected = (0.2**2 + 0.4**2) / 4
    assert icl.inconsistency(early, late).item() == pytest.approx(expected)
    assert icl.inconsistency(early, torch.ones_like(late)) == 0


def test_what_goes_on_is_weighed_or_hidden() -> None:
    model = build("icl").train()
    point = model.points[-1]  # type: ignore[attr-defined]
    given: list[torch.Tensor] = []

    def forward(hides: bool, drops_peak: bool) -> torch.Tensor:
        given.clear()
        model._draws = {point: (hides, drops_peak)}  # type: ignore[attr-defined]
        hook = model.non_local[point].register_forward_hook(  # type: ignore[attr-defined,index]
            lambda module, args, output: given.extend((args[0], output))
        )
        features = model(IMAGES, LABELS).features
        hook.remove()
        return features

    for hides, drops_peak in ((False, False), (True, True), (True, False)):
        seen = forward(hides, drops_peak)
        raw = given[1].mean(1, keepdim=True)
        low, high = raw.amin((2, 3), keepdim=True), raw.amax((2, 3), keepdim=True)
        attention = (raw - low) / (high - low)
        kept = raw.sigmoid() if not hides else attention < 0.8 if drops_peak else attention >= 0.15
        torch.testing.assert_close(seen, model.backbone.neck(given[0] * kept))  # type: ignore[misc]


def test_the_loss_adds_up() -> None:
    model = build("icl", contrastive_weight=0.5, consistency_weight=2.0).train()
    images, targets = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(0))
    outputs = model(images, targets)
    expected = (
        F.cross_entropy(outputs.logits, targets)
        + 0.5 * outputs.extras["contrast"]
        + 2 * outputs.extras["inconsistency"]
    )
    assert torch.equal(model.loss(outputs, targets, F.cross_entropy), expected)
    assert outputs.extras["contrast"] >= 0 and outputs.extras["inconsistency"] >= 0


def test_thresholds_out_of_order() -> None:
    with pytest.raises(ValidationError, match="allowed: from low to high"):
        params("icl", background_threshold=0.6)
