"""Backbones: where they are cut, what fills them, and what cannot."""

import copy
import math
import pickle
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import _api

from pipeline import backbones
from pipeline.errors import UserError

IMAGES = (2, 3, 32, 64)  # not square
POINTS = ("stride2", "stride4", "stride8", "stride16_early", "stride16_late", "last")
CHANNELS = {
    "vgg16": (64, 128, 256, 512, 512, 1024),
    "vgg_small": (8, 16, 32, 64, 96, 128),
    "resnet50": (64, 256, 512, 1024, 2048, 2048),
    "mobilenet_v2": (96, 144, 192, 384, 576, 1280),
}
STRIDES = {"vgg_small": (2, 4, 8, 8, 8, 8)}  # of the image's side over that of the points' maps
USUAL = (2, 4, 8, 16, 16, 16)
every_backbone = pytest.mark.parametrize("name", CHANNELS)


def images() -> Tensor:
    return torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))


def test_all_backbones_are_here() -> None:
    assert backbones.names() == sorted(CHANNELS)


@every_backbone
def test_every_depth_is_there_at_its_size_and_has_passed_a_relu(name: str) -> None:
    backbone = backbones.build(name).eval()
    seen: dict[str, Tensor] = {}

    def at(point: str, features: Tensor) -> Tensor:
        assert point not in seen and features.min() >= 0
        seen[point] = features
        return features

    with torch.no_grad():
        features = backbone(images(), at)
    assert tuple(seen) == backbone.points
    assert tuple(backbone.channels)[: len(POINTS)] == POINTS
    strides = STRIDES.get(name, USUAL)
    for point, stride, channels in zip(POINTS, strides, CHANNELS[name], strict=True):
        height, width = IMAGES[2] // stride, IMAGES[3] // stride
        assert seen[backbone.hooked(point)].shape == (2, channels, height, width)
        assert backbone.channels[point] == channels
    assert features is seen[backbone.hooked("last")]
    assert backbone.out_channels == CHANNELS[name][-1]


def test_two_depths_with_one_tensor_are_hooked_once() -> None:
    backbone = backbones.build("resnet50")
    assert backbone.points == POINTS[:-1]
    assert backbone.hooked("last") == "stride16_late" and backbone.hooked("stride8") == "stride8"
    assert backbone.segment("last") is backbone.segment("stride16_late")


@pytest.mark.parametrize("name", ["vgg16", "vgg_small"])
def test_without_its_neck_a_vgg_ends_at_conv5_3(name: str) -> None:
    backbone = backbones.build(name).eval()
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        backbone(images(), lambda point, features: seen.setdefault(point, features))
        backbone.remove_neck()
        assert torch.equal(backbone(images()), seen["stride16_late"])
    assert backbone.out_channels == CHANNELS[name][-2]
    assert backbone.hooked("last") == "stride16_late"


@every_backbone
def test_what_the_hook_returns_goes_on_and_the_rest_can_be_resumed(name: str) -> None:
    backbone = backbones.build(name).eval()
    first, *_, last = backbone.points
    kept: dict[str, Tensor] = {}

    def halve(point: str, features: Tensor) -> Tensor:
        kept[point] = features / 2 if point == first else features
        return kept[point]

    with torch.no_grad():
        whole = backbone(images(), halve)
        assert torch.equal(backbone(kept[first], after=first), whole)
        assert not torch.equal(backbone(images()), whole)
        after_last = backbone(kept[last], after=last)
    assert torch.equal(after_last, whole)


@every_backbone
def test_weights_are_listed_once_and_a_copy_shares_none(name: str) -> None:
    backbone = backbones.build(name)
    assert all(key.startswith(("trunk.", "neck.")) for key in backbone.state_dict())
    twin = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        expected = twin(images())
        for parameter in backbone.parameters():
            parameter.fill_(0.5)
        assert torch.equal(twin(images()), expected)


def test_a_segment_runs_with_other_weights_for_methods_that_freeze_a_copy() -> None:
    backbone = backbones.build("vgg_small").eval()
    zeros = {name: torch.zeros_like(p) for name, p in backbone.named_parameters()}
    features = torch.rand(2, 64, 2, 4)
    with torch.no_grad():
        expected = backbone(features, after="stride16_early")
        frozen = torch.func.functional_call(
            backbone, zeros, (features,), {"after": "stride16_early"}
        )
        assert expected.any() and not frozen.any()
        assert torch.equal(backbone(features, after="stride16_early"), expected)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenet_v2"])
def test_trunk_has_torchvision_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        whole = torchvision.models.get_model(name, weights=None).state_dict()
    trunk = backbones.build(name).trunk.state_dict()
    expected = {k: v.shape for k, v in whole.items() if not k.startswith(("classifier.", "fc."))}
    assert {k: v.shape for k, v in trunk.items()} == expected


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenet_v2"])
def test_trunk_computes_what_torchvision_computes_up_to_the_changed_stride(name: str) -> None:
    backbone = backbones.build(name).eval()
    kept: dict[str, Tensor] = {}

    def keep(point: str, features: Tensor) -> Tensor:
        return kept.setdefault(point, features)

    builder = getattr(torchvision.models, name)
    with torch.device("meta"):
        whole = builder(weights=None).to_empty(device="cpu").eval()
    whole.load_state_dict(backbone.trunk.state_dict(), strict=False)
    with torch.no_grad():
        backbone(images(), keep)
        if name == "vgg16":
            assert torch.equal(kept["stride16_late"], whole.features[:-1](images()))
        elif name == "resnet50":
            stem = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images()))))
            assert torch.equal(
                kept["stride16_early"], whole.layer3(whole.layer2(whole.layer1(stem)))
            )
        else:
            expanded = whole.features[14].conv[0](whole.features[:14](images()))
            assert torch.equal(kept["stride16_late"], expanded)


def test_vgg_starts_as_published() -> None:
    backbone = backbones.build("vgg16")
    assert backbone.neck is not None
    conv6 = backbone.neck[0]  # type: ignore[index]
    assert conv6.weight.std().item() == pytest.approx((2 / (1024 * 9)) ** 0.5, rel=0.01)
    assert not conv6.bias.any()


@every_backbone
def test_other_numbers_of_input_channels(name: str) -> None:
    backbone = backbones.build(name, input_channels=4).eval()
    with torch.no_grad():
        stride = STRIDES.get(name, USUAL)[-1]
        expected = (1, backbone.out_channels, 32 // stride, 16 // stride)
        assert backbone(torch.zeros(1, 4, 32, 16)).shape == expected


def test_unknown_backbone() -> None:
    with pytest.raises(UserError) as caught:
        backbones.build("vgg17")
    assert str(caught.value) == (
        "params.yaml: backbone is 'vgg17'; allowed: mobilenet_v2, resnet50, vgg16, vgg_small, "
        "timm:<a name of timm>"
    )


# --- weights ----------------------------------------------------------------------------------


def published(name: str) -> dict[str, Tensor]:
    """A state dict as torchvision writes it: the trunk of random weights and a classifier."""
    trunk = backbones.build(name).trunk.state_dict()
    head = "fc" if name == "resnet50" else "classifier.1"
    return {**trunk, f"{head}.weight": torch.zeros(1000, 4), f"{head}.bias": torch.zeros(1000)}


@pytest.mark.parametrize("name", ["vgg_small", "mobilenet_v2"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("half", [False, True])
def test_a_state_dict_fills_the_trunk_and_nothing_else(
    name: str, suffix: str, half: bool, tmp_path: Path
) -> None:
    state = {
        k: v.half() if half and v.is_floating_point() else v for k, v in published(name).items()
    }
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = backbones.build(name)
    neck = copy.deepcopy(backbone.neck)
    backbones.load_weights(backbone, str(path))
    for key, value in backbone.trunk.state_dict().items():
        assert torch.equal(value, state[key].to(value.dtype))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    if neck is not None and backbone.neck is not None:
        for before, after in zip(neck.parameters(), backbone.neck.parameters(), strict=True):
            assert torch.equal(before, after)


def test_none_changes_nothing() -> None:
    backbone = backbones.build("vgg_small")
    before = copy.deepcopy(backbone.state_dict())
    backbones.load_weights(backbone, "none")
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_files_from_before_batch_norm_counted_its_steps(tmp_path: Path) -> None:
    state = {k: v for k, v in published("vgg_small").items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    backbones.load_weights(backbones.build("vgg_small"), str(tmp_path / "old.pth"))


def refusal(name: str, weights: str) -> str:
    with pytest.raises(UserError) as caught:
        backbones.load_weights(backbones.build(name), weights)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    start, end = (
        f"params.yaml: weights is {weights}; ",
        " or the file of a state dict (.safetensors, .pth)",
    )
    text = str(caught.value)
    assert text.startswith(start) and text.endswith(end)
    return text.removeprefix(start).partition("; allowed: ")[0]


def test_entries_that_do_not_fit_are_counted_and_one_is_named(tmp_path: Path) -> None:
    state = published("mobilenet_v2")
    del state["features.18.0.weight"], state["features.18.1.weight"]
    state["features.0.0.weight"] = torch.zeros(32, 4, 3, 3)
    state["features.19.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    assert refusal("mobilenet_v2", str(tmp_path / "w.safetensors")) == (
        "its entries do not fit mobilenet_v2: 2 missing (first: features.18.0.weight), "
        "1 unknown (first: features.19.weight), 1 of another shape (first: features.0.0.weight)"
    )


def test_another_architecture(tmp_path: Path) -> None:
    save_file(published("vgg_small"), tmp_path / "w.safetensors")
    reason = refusal("resnet50", str(tmp_path / "w.safetensors"))
    assert reason.startswith("its entries do not fit resnet50: ")
    assert "missing (first: conv1.weight)" in reason


def test_no_file() -> None:
    assert refusal("vgg16", "models/none.pth") == "there is no such file"


def test_a_directory(tmp_path: Path) -> None:
    assert refusal("vgg16", str(tmp_path)) == "there is no such file"


def test_a_checkpoint_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": published("vgg_small")}, tmp_path / "w.pth")
    reason = refusal("vgg_small", str(tmp_path / "w.pth"))
    assert reason == "it holds a dict of epoch, model, not tensors by name"


def test_a_dict_of_numbers_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(3), 1: torch.zeros(3)}, tmp_path / "w.pth")
    reason = refusal("vgg_small", str(tmp_path / "w.pth"))
    assert reason == "it holds a dict of 0, 1, not tensors by name"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.clone().index_fill_(0, torch.tensor([0]), math.nan), "holds NaN or infinity"),
        (lambda t: t.clone().index_fill_(0, torch.tensor([1]), -math.inf), "holds NaN or infinity"),
        (lambda t: t.half() * 1e6, "holds NaN or infinity"),
        (lambda t: t.to(torch.complex64), "holds complex64, not real numbers"),
        (lambda t: t.to("meta"), "has no values (a meta tensor)"),
        (lambda t: t.to_sparse(), "is sparse or nested"),
        (lambda t: t.flatten(1).to_sparse_csr(), "is sparse or nested"),
        (
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            "holds qint8, not real numbers",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, on sparse and quantized tensors
def test_entries_without_ordinary_values_are_refused(
    change: Callable[[Tensor], Tensor], reason: str, tmp_path: Path
) -> None:
    state = published("vgg_small")
    name = next(k for k, v in state.items() if v.dim() == 4)
    state[name] = change(state[name])
    torch.save(state, tmp_path / "w.pth")
    assert refusal("vgg_small", str(tmp_path / "w.pth")) == f"its entry {name} {reason}"


def test_a_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    assert refusal("vgg_small", str(tmp_path / "w.pth")) == "it is not a dict of tensors by name"


class Malicious:
    """Creates a file if it is ever unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_code_in_a_file_is_not_run(plain_pickle: bool, tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "w.pth"
    if plain_pickle:
        path.write_bytes(pickle.dumps(Malicious(target), protocol=2))
    else:
        torch.save(Malicious(target), path)
    reason = refusal("vgg_small", str(path))
    assert reason == "it would run code when loaded, or is not a PyTorch file"
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_a_file_of_something_else(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    reason = refusal("vgg_small", str(path))
    assert reason.startswith(("it cannot be read (", "it would run code when loaded, or is not"))


def test_no_imagenet_weights_for_the_small_net() -> None:
    with pytest.raises(UserError) as caught:
        backbones.load_weights(backbones.build("vgg_small"), "imagenet")
    assert str(caught.value) == (
        "params.yaml: weights is imagenet; there are none for vgg_small; "
        "allowed: none or the file of a state dict (.safetensors, .pth)"
    )


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenet_v2"])
def test_imagenet_asks_torchvision_and_checks_the_hash(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = published(name)
    asked: dict[str, Any] = {}

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.update(url=url, **options)
        return state

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    backbone = backbones.build(name)
    backbones.load_weights(backbone, "imagenet")
    assert f"/{name}-" in asked["url"] and asked["check_hash"] is True
    assert all(torch.equal(v, state[k]) for k, v in backbone.trunk.state_dict().items())


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("name not known"),
        TimeoutError("timed out"),
        RuntimeError('invalid hash value (expected "397923af")'),
    ],
)
def test_a_failed_download_says_what_else_is_allowed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, **options: Any) -> None:
        raise error

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    assert refusal("vgg16", "imagenet") == f"the download failed ({error})"
