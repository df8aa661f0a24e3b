"""What every file of pipeline/methods promises, on every backbone."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline import backbones, methods
from pipeline.errors import UserError
from pipeline.methods.base import Method, Outputs
from tests.imports import ROOT
from tests.pipeline.methods.builders import CLASSES, build

METHODS = methods.names()
TIMM = ("timm:test_resnet", "timm:mobilenetv3_small_100", "timm:test_convnext", "timm:test_vit")
CASES = [(method, backbone) for backbone in (*backbones.names(), *TIMM) for method in METHODS]
SIZE = (32, 48)  # not square


def test_every_file_is_a_method_and_all_are_tested() -> None:
    files = {p.stem for p in Path(methods.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert (
        set(METHODS)
        == files
        == {
            "acol",
            "adl",
            "ahd",
            "ass",
            "bas",
            "cam",
            "cutmix",
            "danet",
            "eil",
            "has",
            "icl",
            "mci",
            "nl_ccam",
            "rcam",
            "spg",
        }
    )
    assert len(CASES) == 8 * 15


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def model(request: pytest.FixtureRequest) -> Iterator[Method]:
    yield build(*request.param)


@pytest.fixture(scope="module", params=METHODS)
def small(request: pytest.FixtureRequest) -> Method:
    return build(request.param, "vgg_small")


def batch(count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, *SIZE, generator=generator)
    return images, torch.arange(count) % CLASSES


def begin_step(
    model: Method, images: Tensor, targets: Tensor, seed: int = 2
) -> tuple[Tensor, Tensor]:
    """The batch to learn from, as the training loop gets it; the one place with random numbers."""
    model.train()
    model.begin_epoch(0.5)
    return model.on_batch(images, targets, torch.Generator().manual_seed(seed))


def training_loss(model: Method, images: Tensor, targets: Tensor, seed: int = 2) -> Tensor:
    """One step's loss, as the training loop computes it."""
    images, targets = begin_step(model, images, targets, seed)
    return model.loss(model(images, targets), targets, F.cross_entropy)


def evaluated(model: Method, images: Tensor, classes: Tensor) -> tuple[Outputs, Tensor]:
    model.eval()
    with torch.no_grad():
        outputs = model(images)
        return outputs, model.class_maps(outputs, classes)


def state(model: Method) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that are not saved."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("count", [2, 1])
def test_a_training_step_reaches_every_parameter_and_leaves_the_batch(
    model: Method, count: int
) -> None:
    images, targets = batch(count)
    given = images.clone(), targets.clone()
    model.zero_grad(set_to_none=True)
    learn = {id(p) for g in model.parameter_groups(1, 1) if g["multiplier"] for p in g["params"]}
    for seed in range(2, 10):  # some parts act in some steps only, by chance
        loss = training_loss(model, images, targets, seed)
        assert loss.shape == () and torch.isfinite(loss)
        loss.backward()
        if all(p.grad is not None for p in model.parameters() if id(p) in learn):
            break
    for name, parameter in model.named_parameters():
        if id(parameter) in learn:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    assert torch.equal(images, given[0]) and torch.equal(targets, given[1])


# Biases that the softmax over keys, or the batch norm behind them, takes out again.
WITHOUT_EFFECT = re.compile(r"(non_local\.\w+|attend)\.(key|value|out)\.bias")


def test_every_parameter_that_should_learn_moves(small: Method) -> None:
    """A gradient that is there but zero for ever would pass the test above."""
    model = copy.deepcopy(small)
    groups = model.parameter_groups(0.02, 1)
    optimizer = torch.optim.SGD(groups, lr=0.02)
    learn = {id(p) for group in groups if group["multiplier"] for p in group["params"]}
    left = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if id(parameter) in learn and not WITHOUT_EFFECT.fullmatch(name)
    }
    assert left
    for seed in range(60):  # blocks that begin as the identity need a few; draws decide what acts
        optimizer.zero_grad()
        training_loss(model, *batch(4), seed).backward()
        optimizer.step()
        now = dict(model.named_parameters())
        left = {name: before for name, before in left.items() if torch.equal(before, now[name])}
        if not left:
            break
    assert not left


def test_the_same_generator_gives_the_same_loss(small: Method) -> None:
    assert torch.equal(training_loss(small, *batch()), training_loss(small, *batch()))


def test_maps_of_any_class_are_finite_and_the_same_every_time(model: Method) -> None:
    images, _ = batch()
    given = images.clone()
    classes = torch.tensor([[4, 0, 2], [1, 1, 3]])
    outputs, maps = evaluated(model, images, classes)
    assert outputs.logits.shape == (2, CLASSES) and torch.isfinite(outputs.logits).all()
    assert maps.shape[:2] == classes.shape and maps.shape[2] * SIZE[1] == maps.shape[3] * SIZE[0]
    assert maps.dtype == torch.float32 and torch.isfinite(maps).all()
    assert (maps.amax((2, 3)) > maps.amin((2, 3))).all()
    again, same = evaluated(model, images, classes)
    assert torch.equal(maps, same) and torch.equal(outputs.logits, again.logits)
    assert torch.equal(images, given)
    assert torch.allclose(evaluated(model, images, classes.flip(1))[1], maps.flip(1), atol=1e-6)


def test_an_image_alone_gets_the_map_it_gets_in_a_batch(model: Method) -> None:
    images, classes = batch()[0], torch.tensor([[0, 3], [2, 2]])
    outputs, maps = evaluated(model, images, classes)
    alone, its = evaluated(model, images[:1], classes[:1])
    scale = maps.abs().max().item()
    assert torch.allclose(alone.logits, outputs.logits[:1], rtol=1e-4, atol=1e-6)
    assert torch.allclose(its, maps[:1], rtol=1e-4, atol=max(1e-4 * scale, 1e-6))


def test_evaluation_leaves_the_model_as_it_was(model: Method) -> None:
    model.eval()
    before = copy.deepcopy(state(model))
    evaluated(model, batch()[0], torch.zeros(2, 1, dtype=torch.int64))
    after = state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_parameter_groups_hold_every_parameter_once(model: Method) -> None:
    trunk, new = model.parameter_groups(0.01, 10)
    held = [id(p) for group in (trunk, new) for p in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert {id(p) for p in trunk["params"]} == set(map(id, model.backbone.trunk.parameters()))
    assert (trunk["lr"], trunk["multiplier"]) in ((0.01, 1), (0, 0))
    assert (new["lr"], new["multiplier"]) == (0.1, 10)
    torch.optim.SGD([trunk, new], lr=0.01)


def test_statistics_are_of_the_training_since_they_were_read(small: Method) -> None:
    small.statistics()
    images, _ = batch()
    evaluated(small, images, torch.zeros(2, 1, dtype=torch.int64))
    assert small.statistics() == {}
    training_loss(small, *batch())
    assert all(type(value) is float for value in small.statistics().values())
    assert small.statistics() == {}


def test_box_selection_is_one_that_params_allow(small: Method) -> None:
    assert small.box_selection in ("fixed", "two_stage")


class NoWaiting(TorchDispatchMode):
    """Fails on every operation whose result, or its shape, a GPU would have to be waited for."""

    WAITING = (
        "_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "is_nonzero", "equal",
        "bincount", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave",
        "allclose",
    )  # fmt: skip

    def __init__(self, *on_device: Tensor) -> None:
        """on_device: these and all that is computed from them are on the GPU; none given: everything."""
        super().__init__()
        self.on_device = {id(tensor): tensor for tensor in on_device}  # held, so that no id returns

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self.on_device and not any(id(tensor) in self.on_device for tensor in given):
            return func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [i for i in args[1] if i is not None]
            assert all(i.dtype not in (torch.bool, torch.uint8) for i in indices), "boolean index"
        result = func(*args, **(kwargs or {}))
        if self.on_device:
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.on_device |= {id(tensor): tensor for tensor in made}
        return result


@pytest.mark.parametrize("trap", ["item", "branch", "nonzero", "boolean index"])
def test_the_watch_for_waiting_sees_it(trap: str) -> None:
    tensor = torch.ones(3)
    with pytest.raises(AssertionError), NoWaiting():
        match trap:
            case "item":
                tensor.sum().item()
            case "branch":
                bool((tensor > 0).any())
            case "nonzero":
                tensor.nonzero()
            case _:
                tensor[tensor > 0]


def test_the_watch_tells_the_device_from_the_processor() -> None:
    here, there = torch.ones(3), torch.ones(3)
    with NoWaiting(there):
        here.sum().item()
        with pytest.raises(AssertionError):
            (here + there).sum().item()


def test_a_training_step_never_waits_for_the_device(model: Method) -> None:
    """What `on_batch` draws is on the CPU and may be looked at; the batch is not."""
    images, targets = batch()
    with NoWaiting(images, targets):
        images, targets = begin_step(model, images, targets)
    with NoWaiting():
        model.loss(model(images, targets), targets, F.cross_entropy).backward()


def test_bf16_trains_and_maps_keep_float32(small: Method) -> None:
    images, targets = batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = training_loss(small, images, targets)
        outputs, maps = evaluated(small, images, targets[:, None])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(maps).all()
    assert outputs.features.dtype == torch.bfloat16
    assert outputs.logits.dtype == maps.dtype == torch.float32


def test_channels_last_changes_nothing_but_speed(small: Method) -> None:
    images, targets = batch()
    expected = evaluated(small, images, targets[:, None])[1]
    other = copy.deepcopy(small).to(memory_format=torch.channels_last)
    maps = evaluated(other, images.contiguous(memory_format=torch.channels_last), targets[:, None])[
        1
    ]
    assert torch.allclose(maps, expected, rtol=1e-3, atol=1e-5)


VARIANTS = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))["ablate"]["variants"]
PLUGGED = [
    (variant["method"], points)
    for variant in VARIANTS.values()
    if (points := variant.get("set", {}).get(f"methods.{variant['method']}.plug_points"))
]


@pytest.mark.parametrize("backbone", backbones.names())
def test_every_ablation_variant_is_plugged_into_every_backbone(backbone: str) -> None:
    assert len(PLUGGED) >= 9
    for method, points in PLUGGED:
        model = build(method, backbone, plug_points=points)
        assert len(model.params.plug_points) == len(points)  # type: ignore[attr-defined]
        assert torch.isfinite(training_loss(model, *batch()))


def test_plug_points_that_are_one_map_are_plugged_once() -> None:
    model = build("ass", "resnet50", plug_points=["stride8", "conv5_3", "last"])
    assert model.params.plug_points == ("stride8", "stride16_late")  # type: ignore[attr-defined]
    with pytest.raises(UserError) as caught:
        build("spg", "resnet50", plug_points=["conv5_3", "last"])
    assert str(caught.value) == (
        "params.yaml: methods.spg.plug_points is [stride16_late, last], which on resnet50 are only 1 maps; "
        "allowed: 2 of stride2, stride4, stride8, stride16_early, stride16_late"
    )


@pytest.mark.parametrize("name", ["has", "mci"])
def test_processes_that_share_a_batch_hide_what_one_would(name: str) -> None:
    model = build(name)
    images, targets = torch.rand(5, 3, 64, 48) + 1, torch.arange(5)

    def hidden(rows: slice) -> Tensor:
        model.rows, model.whole = rows, len(images)
        given, _ = model.on_batch(images[rows], targets[rows], torch.Generator().manual_seed(1))
        return (given == 0).unflatten(0, (-1, len(images[rows]))).transpose(0, 1)

    whole = hidden(slice(None))
    assert whole.any() and not whole.all()
    assert torch.cat([hidden(slice(0, 2)), hidden(slice(2, 5))]).equal(whole)
