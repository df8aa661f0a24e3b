"""NL-CCAM: rank weights and combined maps by hand; its laws: (1, 0, …) is CAM, new blocks do nothing."""

import pytest
import torch

from pipeline.layers.non_local import NonLocal
from pipeline.methods import nl_ccam
from tests.pipeline.methods.builders import CLASSES, build

IMAGES = torch.randn(3, 3, 32, 48)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("top", [1, 0, 0, 0, 0]),
        ("top_bottom", [1, 0, 0, 0, -1]),
        ("linear", [1, 0.5, 0, -0.5, -1]),
        ("quadratic", [1, 0, 0, -0.25, -1]),
        ("top20", [1, 1, 1, 1, 1]),
    ],
)
def test_rank_weights(name: str, expected: list[float]) -> None:
    assert nl_ccam.rank_weights(name, 5).tolist() == pytest.approx(expected)


def test_top20_is_twenty() -> None:
    assert nl_ccam.rank_weights("top20", 200).sum() == 20


def test_the_combined_map_is_the_ranked_sum_of_maps() -> None:
    model = build("nl_ccam").eval()
    outputs = model(IMAGES)
    ranked = nl_ccam.rank_weights("quadratic", CLASSES)
    weight, got = model.classifier.weight, model.class_maps(outputs, torch.tensor([[0, 4]] * 3))
    for i in range(3):
        expected = torch.zeros(got.shape[2:])
        for r, c in enumerate(outputs.logits[i].argsort(descending=True).tolist()):
            expected += ranked[r] * (weight[c][:, None, None] * outputs.features[i]).sum(0)
        torch.testing.assert_close(got[i, 0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(got[:, 0], got[:, 1])  # class-agnostic


def test_rank_weights_of_one_give_the_predicted_classs_cam() -> None:
    model, cam = build("nl_ccam", combination="top").eval(), build("cam").eval()
    cam.load_state_dict(model.state_dict(), strict=False)
    outputs = model(IMAGES)
    torch.testing.assert_close(outputs.logits, cam(IMAGES).logits)  # the blocks are the identity
    predicted = outputs.logits.argmax(1, keepdim=True)
    torch.testing.assert_close(
        model.class_maps(outputs, predicted), cam.class_maps(cam(IMAGES), predicted)
    )


def test_a_non_local_block_against_plain_attention() -> None:
    block, x = NonLocal(16).eval(), torch.randn(2, 16, 3, 5)
    assert torch.equal(block(x), x)
    torch.nn.init.ones_(block.norm.weight)
    q, k, v = (conv(x).flatten(2) for conv in (block.query, block.key, block.value))
    attention = torch.einsum("bci,bcj->bij", q, k).softmax(2)
    seen = torch.einsum("bij,bcj->bci", attention, v).unflatten(2, (3, 5))
    torch.testing.assert_close(block(x), x + block.norm(block.out(seen)))
