"""DANet: discrepancy by hand and by a plain loop, logits, and maps of a class that is not the predicted one."""

import math
from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError
from pipeline.methods import danet
from pipeline.methods.danet import LEVELS
from tests.imports import ROOT
from tests.pipeline.methods.builders import CLASSES, build

IMAGES, LABELS = torch.randn(2, 3, 32, 48), torch.tensor([4, 0])
NAMES = [f"class {k}" for k in range(CLASSES)]


def test_discrepancy_by_hand() -> None:
    maps = torch.tensor(
        [[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]]
    )
    # first image: cosines 1, 0, 0; second: −1, 1, −1, whose sum counts without its sign; three pairs
    assert danet.discrepancy(maps).item() == pytest.approx((1 / 3 + 1 / 3) / 2, abs=1e-6)


def test_discrepancy_as_a_loop() -> None:
    maps = torch.randn(3, 5, 12)
    values = []
    for image in maps:
        pairs = list(combinations(image, 2))
        cosines = [(a @ b / math.sqrt((a @ a + 1e-8) * (b @ b + 1e-8))).item() for a, b in pairs]
        values.append(abs(sum(cosines)) / len(pairs))
    assert danet.discrepancy(maps).item() == pytest.approx(sum(values) / 3, rel=1e-5)


def some_images() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for label in range(CLASSES):
        yield torch.randn(2, 3, 32, 32, generator=generator) + label, torch.full((2,), label)


def test_the_maps_add_up_the_levels() -> None:
    model = build("danet", maps=3).eval()
    model.begin_training(NAMES, some_images)
    outputs = model(IMAGES)
    classes = torch.tensor([[0, 3], [1, 1]])
    maps = model.class_maps(outputs, classes)
    size = outputs.extras["order"].shape[3:]
    for i, row in enumerate(classes.tolist()):
        for q, label in enumerate(row):
            expected = torch.zeros(size)
            for level in LEVELS:
                group = label if level == "species" else int(model.get_buffer(level)[label])
                three = outputs.extras[level][i, group].relu()
                up = F.interpolate(three[None], size, mode="bilinear", align_corners=False)
                expected += up[0].mean(0)
            torch.testing.assert_close(maps[i, q], expected)
    species = outputs.extras["species"]
    torch.testing.assert_close(outputs.logits, species.mean((2, 3, 4)))


def test_the_loss_is_half_of_each_level_and_the_discrepancy() -> None:
    model = build("danet", maps=2, discrepancy_weight=0.7).train()
    images, targets = model.on_batch(IMAGES, LABELS, torch.Generator().manual_seed(3))
    outputs = model(images, targets)
    expected = torch.zeros(())
    for level in LEVELS:
        label = targets if level == "species" else model.get_buffer(level)[targets]
        logits = outputs.extras[level].mean((2, 3, 4))
        expected = expected + F.cross_entropy(logits, label) / 2
    size, found = outputs.extras["order"].shape[3:], []
    for level in LEVELS:
        label = targets if level == "species" else model.get_buffer(level)[targets]
        own = torch.stack([outputs.extras[level][i, k] for i, k in enumerate(label.tolist())])
        found.append(F.interpolate(own, size, mode="bilinear", align_corners=True))
    chosen = torch.randperm(6, generator=torch.Generator().manual_seed(3))[:3]
    drawn = torch.cat(found, 1)[:, chosen].flatten(2)
    expected = expected + 0.7 * danet.discrepancy(drawn)
    torch.testing.assert_close(model.loss(outputs, targets, F.cross_entropy), expected)


def test_the_hierarchy_is_found_before_training_and_said() -> None:
    model = build("danet")
    (line,) = model.begin_training(NAMES, some_images)
    assert line.startswith("danet: families and orders by clustering features; 5 classes, ")
    mean = model._class_features(some_images)  # type: ignore[attr-defined]
    for label, (batch, _) in enumerate(some_images()):
        alone = model.backbone(batch).mean((2, 3)).mean(0)
        assert torch.allclose(mean[label], alone, rtol=1e-3, atol=1e-4)


def test_a_table_of_ones_own(tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "tree.csv"  # type: ignore[operator]
    rows = [f"{name},f{k // 2},o{k // 4}" for k, name in enumerate(NAMES)]
    file.write_text("\n".join(["class,family,order", *rows]))
    model = build("danet", hierarchy=str(file))
    (line,) = model.begin_training(NAMES, some_images)
    assert line == "danet: families and orders from tree.csv; 5 classes, 3 families, 2 orders"
    assert model.get_buffer("family").tolist() == [0, 0, 1, 1, 2]
    assert model.get_buffer("order").tolist() == [0, 0, 0, 0, 1]


def test_a_table_that_will_not_do(tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "tree.csv"  # type: ignore[operator]
    where = f"{file} (params.yaml: methods.danet.hierarchy)"

    def told(limits: tuple[int, int] = (9, 9)) -> str:
        with pytest.raises(UserError) as caught:
            danet.hierarchy_of(["a", "b"], str(file), limits)
        return str(caught.value)

    assert told() == f"{where} cannot be read: No such file or directory"
    file.write_text("class,family\na,f\n")
    assert told().startswith(f"{where} has no column order; its columns are class, family;")
    file.write_text("class,family,order\na,f,o\n")
    assert told() == f"{where} lacks 1 classes (first: b)"
    file.write_text("class,family,order\na,f,o\nb,g,o\n")
    assert told((1, 1)).endswith("has 2 families; params.yaml: methods.danet.families allows 1")


def test_the_birds_are_known() -> None:
    import csv

    birds = ROOT / "data" / "cub_taxonomy.csv"
    with birds.open(newline="") as text:
        names = [row["class"] for row in csv.DictReader(text)]
    assert len(names) == len(set(names)) == 200
    found = danet.hierarchy_of(names, str(birds), (37, 13))
    assert found.counts() == "200 classes, 37 families, 13 orders"
    by_name = dict(zip(names, found.family, strict=True))
    assert by_name["001.Black_footed_Albatross"] == by_name["002.Laysan_Albatross"]


def test_clusters_keep_what_belongs_together() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [0.0, 9.0], [50.0, 0.0], [50.0, 9.0]])
    features = centres.repeat_interleave(4, 0) + torch.randn(16, 2, generator=generator) / 10
    found = danet.clustered(features, (37, 13))
    families = [len(set(found.family[4 * k : 4 * k + 4])) for k in range(4)]
    assert len(set(found.family)) == 4 and families == [1, 1, 1, 1]
    assert len({*found.order[:8]}) == len({*found.order[8:]}) == 1
    assert found.order[0] != found.order[8]
    alone = danet.clustered(features[:1], (37, 13))
    assert (alone.family, alone.order) == ([0], [0])
