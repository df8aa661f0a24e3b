"""timm's networks: plug points, weights, pixels, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline import backbones
from pipeline.backbones.timm import Pixels
from pipeline.errors import UserError
from pipeline.params.plug_points import POINTS
from tests.imports import ROOT

SIDES = {"stride2": 2, "stride4": 4, "stride8": 8}
# What is distinct by depth: expansions and ReLUs are at least about zero, residual streams are not.
FAMILIES = {
    "resnet18": POINTS[:-1],
    "resnet50d": POINTS[:-1],
    "regnetx_002": POINTS[:-1],
    "test_byobnet": POINTS[:-1],
    "tf_efficientnet_lite0": POINTS,
    "tf_efficientnetv2_b0": POINTS,
    "mobilenetv3_small_100": POINTS,
    "mobilenetv4_conv_small": ("stride2", "stride4", "stride8", "stride16_late", "last"),
    "test_convnext": POINTS[1:],
    "test_vit": POINTS,
}
SIGNED = ("test_convnext", "test_vit")
every_family = pytest.mark.parametrize("name", FAMILIES)
LITE0 = ROOT.parent / "shared" / "weights" / "efficientnet_lite0-imagenet.safetensors"


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def seen(backbone: backbones.Backbone, given: Tensor) -> dict[str, Tensor]:
    """Every plug point's tensor; the hook sees each once."""
    found: dict[str, Tensor] = {}

    def at(point: str, features: Tensor) -> Tensor:
        assert point not in found
        return found.setdefault(point, features)

    with torch.no_grad():
        assert torch.equal(backbone(given, at), found[backbone.hooked("last")])
    return found


@every_family
def test_every_depth_is_there_at_its_size(name: str) -> None:
    backbone = backbones.build(f"timm:{name}").eval()
    found = seen(backbone, images())
    assert tuple(found) == backbone.points == FAMILIES[name]
    for point in POINTS:
        features = found[backbone.hooked(point)]
        side = 16 if name == "test_vit" else SIDES.get(backbone.hooked(point), 16)
        assert features.shape == (2, backbone.channels[point], 64 // side, 96 // side)
        assert name in SIGNED or features.min() > -0.5
    assert backbone.out_channels == found[backbone.hooked("last")].shape[1]


@every_family
def test_the_rest_can_be_resumed_at_every_point_and_a_copy_is_independent(name: str) -> None:
    backbone = backbones.build(f"timm:{name}").eval()
    given = images(32, 48)
    found = seen(backbone, given)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for point, features in found.items():
            assert torch.equal(backbone(features, after=point), found[backbone.hooked("last")])
        for parameter in backbone.parameters():
            parameter.fill_(0.5)
        assert torch.equal(twin(given), found[backbone.hooked("last")])
    assert all(key.startswith("trunk.") for key in backbone.state_dict())


def test_the_expansion_before_the_removed_stride_is_timms_own() -> None:
    backbone = backbones.build("timm:tf_efficientnet_lite0").eval()
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(backbone.trunk.state_dict(), strict=False)
    kept: list[Tensor] = []
    whole.blocks[5][0].bn1.register_forward_hook(lambda module, given, output: kept.append(output))
    pixels = backbone.pixels
    assert pixels is not None
    with torch.no_grad():
        whole(pixels(images()))
    assert torch.equal(seen(backbone, images())["stride16_late"], kept[0])


def test_patch_tokens_are_the_map() -> None:
    backbone = backbones.build("timm:test_vit").eval()
    whole = timm.create_model("test_vit", dynamic_img_size=True).eval()
    whole.load_state_dict(backbone.trunk.state_dict(), strict=False)
    assert backbone.pixels is not None
    with torch.no_grad():
        tokens = whole.forward_features(backbone.pixels(images()))[:, whole.num_prefix_tokens :]
        expected = tokens.mT.unflatten(2, (4, 6))
        assert torch.allclose(backbone(images()), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "regnetx_002", "test_convnext", "test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_timms_own_loads_and_its_classifier_is_ignored(
    name: str, suffix: str, tmp_path: Path
) -> None:
    state = timm.create_model(name).state_dict()
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = backbones.build(f"timm:{name}")
    backbones.load_weights(backbone, str(path))
    loaded = backbone.trunk.state_dict()
    assert loaded and all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.skipif(not LITE0.exists(), reason="the published EfficientNet-Lite0 is not beside")
def test_published_weights_fill_every_entry() -> None:
    backbone = backbones.build("timm:tf_efficientnet_lite0")
    with torch.no_grad():
        for value in backbone.state_dict().values():
            value.fill_(7)
    backbones.load_weights(backbone, str(LITE0))
    assert not any(
        (value == 7).all()
        for key, value in backbone.state_dict().items()
        if "num_batches" not in key
    )
    assert torch.isfinite(backbone.eval()(images())).all()


def test_images_reach_the_network_with_its_own_mean_and_deviation() -> None:
    pixels = Pixels((0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = torch.tensor([0.75, 0.5, 0.2])
    own = pixels(((rgb - mean) / std)[None, :, None, None])
    assert torch.allclose(own.flatten(), torch.tensor([0.5, 0.5, -1.0]), atol=1e-5)
    assert backbones.build("timm:resnet18").pixels is None  # ImageNet's already


def test_imagenet_is_timms_own_download(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, create = backbones.build("timm:test_resnet"), timm.create_model
    other = create("test_resnet").state_dict()

    def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
        model = create(name, **options)
        if pretrained:
            model.load_state_dict(other, strict=False)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    backbones.load_weights(backbone, "imagenet")
    loaded = backbone.trunk.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in loaded.items())


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbones.build("timm:test_resnet")

    def away(*names: str, **options: Any) -> None:
        raise ValueError("name not known")  # httpx's errors are not OSError either

    monkeypatch.setattr(timm, "create_model", away)
    with pytest.raises(UserError) as caught:
        backbones.load_weights(backbone, "imagenet")
    assert str(caught.value) == (
        "params.yaml: weights is imagenet; the download failed (name not known); "
        "allowed: none, imagenet or the file of a state dict (.safetensors, .pth)"
    )


@pytest.mark.parametrize(
    ("name", "weights", "problem"),
    [
        ("resnet5", "none", "which timm does not have; allowed: timm:resnet50 or "),
        ("", "none", "which timm does not have; allowed: timm:<a name of timm>"),
        ("resnet50.nobody", "none", "timm has no weights named nobody; "),
        ("vit_base_patch32_224", "none", "whose patches are 32 pixels and blocks 12; "),
        ("test_mambaout", "none", "whose layers are not a chain of convolutions that ends at 1/16"),
        ("test_maxvit", "none", "whose layers are not a chain of convolutions that ends at 1/16"),
        ("hrnet_w18_small", "none", "whose layers are not a chain of convolutions that ends at"),
        ("resnet50_mlp", "imagenet", "weights is 'imagenet', which timm:resnet50_mlp has none of"),
    ],
)
def test_what_is_refused_before_any_work(name: str, weights: str, problem: str) -> None:
    (line,) = backbones.problems(f"timm:{name}", weights)
    assert problem in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "channels"),
    [("mobilenet_v2", 960), ("timm:tf_efficientnet_lite0", 1152), ("resnet50", None)],
)
def test_an_expansion_behind_the_last_native_map_can_be_watched(
    name: str, channels: int | None
) -> None:
    backbone = backbones.build(name).eval()
    assert backbone.channels.get("deep") == channels
    if channels is None:
        return
    seen: list[Tensor] = []
    backbone.segment("deep").register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        backbone(images())
    assert [x.shape for x in seen] == [(2, channels, 4, 6)]
    assert seen[0].min() >= 0 and "deep" not in backbone.points
