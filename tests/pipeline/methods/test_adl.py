"""ADL by hand, and its law: a threshold above 1 hides nothing."""

import torch

from pipeline.methods import adl
from tests.pipeline.methods.builders import build, like

FEATURES = torch.tensor([[[[0.0, 2.0], [4.0, 10.0]], [[0.0, 0.0], [4.0, 6.0]]]])  # mean 0 1 / 4 8


def test_importance_is_the_sigmoid_of_the_channel_mean() -> None:
    expected = torch.sigmoid(torch.tensor([[[[0.0, 1.0], [4.0, 8.0]]]]))
    assert torch.equal(adl.importance(FEATURES), expected)


def test_a_layer_hides_or_weighs() -> None:
    hides = build("adl", drop_rate=1.0, drop_threshold=0.5).train()
    hides.on_batch(FEATURES, torch.tensor([0]), torch.Generator())
    hidden = hides.on_feature("stride16_early", FEATURES, None, 1.0)
    assert torch.equal(hidden, FEATURES * torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    weighs = build("adl", drop_rate=0.0).train()
    weighs.on_batch(FEATURES, torch.tensor([0]), torch.Generator())
    assert torch.equal(
        weighs.on_feature("stride16_early", FEATURES, None, 1.0),
        FEATURES * adl.importance(FEATURES),
    )
    assert torch.equal(weighs.on_feature("stride2", FEATURES, None, 1.0), FEATURES)


def test_layers_draw_for_themselves_at_the_given_rate() -> None:
    model, generator = build("adl", drop_rate=0.75), torch.Generator().manual_seed(0)
    draws = []
    for _ in range(400):
        model.on_batch(FEATURES, torch.tensor([0]), generator)
        draws.append([model._drops[p] for p in ("stride8", "stride16_early", "stride16_late")])  # type: ignore[operator, index]
    share = torch.tensor(draws).float().mean(0)
    assert ((share > 0.68) & (share < 0.82)).all()
    assert len(set(map(tuple, draws))) == 8


def test_nothing_hidden_is_cam() -> None:
    model = build("adl", drop_rate=1.0, drop_threshold=1.1).train()
    images, labels = torch.randn(4, 3, 32, 48), torch.tensor([0, 1, 2, 3])
    model.on_batch(images, labels, torch.Generator())
    cam = like(model, "cam")
    assert torch.equal(model(images, labels).logits, cam(images, labels).logits)
