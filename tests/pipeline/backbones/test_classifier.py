"""ILSVRC's classes keep the classifier that a backbone's weights come with."""

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from pipeline import backbones, methods
from pipeline.backbones import resnet, weights
from pipeline.methods.base import Method
from tests.pipeline.methods.builders import params

TENCH, CHURCH, PARACHUTE = "n01440764", "n03028079", "n03888257"
ROWS = {TENCH: 0, CHURCH: 497, PARACHUTE: 701}  # of torchvision's classifiers


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    found: dict[str, Tensor] = resnet50(weights=None).state_dict()
    return found


@pytest.fixture
def published(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """ResNet50's published weights are `state`."""
    monkeypatch.setattr(resnet, "partial", lambda *_: lambda: state)
    return state


def built(method: str, class_names: list[str]) -> Method:
    count = len(class_names)
    return methods.build(method, "resnet50", "imagenet", count, params(method), class_names)


def all_names() -> list[str]:
    from timm.data import ImageNetInfo

    names: list[str] = ImageNetInfo("imagenet-1k").label_names()
    return sorted(names)


@pytest.mark.parametrize("method", ["cam", "ass", "rcam"])
def test_all_classes_keep_the_whole_classifier(method: str, published: dict[str, Tensor]) -> None:
    model = built(method, all_names())
    assert model.pretrained_classifier
    assert torch.equal(model.classifier.weight, published["fc.weight"])
    assert torch.equal(model.classifier.bias, published["fc.bias"])


@pytest.mark.parametrize("names", [[TENCH, CHURCH, PARACHUTE], [PARACHUTE, TENCH]])
def test_some_classes_keep_their_rows(names: list[str], published: dict[str, Tensor]) -> None:
    model = built("cam", names)
    rows = [ROWS[name] for name in names]
    assert torch.equal(model.classifier.weight, published["fc.weight"][rows])
    assert torch.equal(model.classifier.bias, published["fc.bias"][rows])


@pytest.mark.parametrize(
    "names",
    [["001.Black_footed_Albatross", "004.Groove_billed_Ani"], [TENCH, "n00000001"], [TENCH, "cat"]],
)
@pytest.mark.usefixtures("published")
def test_other_classes_begin_at_random(names: list[str]) -> None:
    model = built("cam", names)
    assert not model.pretrained_classifier
    assert not model.classifier.bias.any()


@pytest.mark.usefixtures("published")
def test_a_head_of_its_own_begins_at_random() -> None:
    assert not built("acol", [TENCH, CHURCH]).pretrained_classifier


def test_what_a_classifier_is_not() -> None:
    trunk = backbones.build("vgg16")
    fc8 = {"classifier.6.weight": torch.ones(1000, 4096), "classifier.6.bias": torch.ones(1000)}
    assert weights._linear(fc8, trunk) is None  # on a fully connected layer, not on the last map
    trunk = backbones.build("mobilenet_v2")
    linear = {"classifier.1.weight": torch.ones(1000, 1280), "classifier.1.bias": torch.ones(1000)}
    assert weights._linear(linear, trunk) is not None
    assert weights._linear({**linear, "classifier.2.bias": torch.ones(3)}, trunk) is None
    assert weights._linear({}, trunk) is None


def test_a_classifier_of_other_classes_is_not_imagenets() -> None:
    assert backbones.imagenet_rows([TENCH], 200) is None
