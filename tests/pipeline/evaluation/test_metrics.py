import numpy as np
import pytest

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Figure

CURVE = np.array([[0.6, 0.2], [0.4, 0.8], [0.1, 0.1]], np.float32)


def test_iou_by_hand() -> None:
    a = [0, 0, 4, 2]
    assert metrics.iou(a, a) == 1
    assert metrics.iou(a, [2, 1, 6, 3]) == pytest.approx(2 / 14)
    assert metrics.iou(a, [4, 0, 8, 2]) == 0  # they touch
    assert metrics.iou(a, [9, 9, 12, 11]) == 0  # apart on both axes: no negative sides multiplied
    assert metrics.iou([3, 3, 3, 3], [3, 3, 3, 3]) == 0  # nothing in nothing
    assert metrics.iou([a, a], [[0, 0, 4, 1], [0, 0, 1, 1]]).tolist() == [0.5, 0.125]


def test_inclusive_boxes_have_the_same_iou() -> None:
    a, b = np.array([0, 0, 3, 1]), np.array([2, 1, 5, 2])  # last pixels, not edges
    width, height = 3 - 2 + 1, 1 - 1 + 1
    edge = np.array([0, 0, 1, 1])
    assert metrics.iou(a + edge, b + edge) == width * height / (8 + 8 - 2)


def test_best_of_several_boxes() -> None:
    boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 2]])
    best = metrics.best_iou(boxes, [np.array([[9, 9, 10, 10], [0, 0, 4, 1]]), np.empty((0, 4))])
    assert best[0] == 0.5 and np.isnan(best[1])


def summary(bootstrap: int = 200, seed: int = 0, **changes: object) -> dict[str, Figure]:
    topk = changes.pop("topk", np.array([[0, 1], [2, 1], [0, 1]]))
    hit = topk == np.asarray(changes.pop("labels", np.array([0, 1, 2])))[:, None]
    given: dict[str, object] = {
        "top1": hit[:, 0],
        "top5": hit.any(axis=1),
        "iou_true": np.array([0.6, 0.5, 0.9]),
        "iou_predicted": np.array([0.6, 0.7, 0.1]),
        "curve_largest": CURVE,
        "curve_any": CURVE + np.float32(0.1),
    }
    scored = metrics.Scored(**(given | changes))  # type: ignore[arg-type]
    return metrics.figures(scored, bootstrap=bootstrap, seed=seed)


def test_every_figure_by_hand() -> None:
    values = {name: figure.value for name, figure in summary().items()}
    assert values == pytest.approx(
        {
            "top1_cls_err": 100 * 2 / 3,
            "top5_cls_err": 100 / 3,
            "top1_loc_err": 100 * 2 / 3,  # only the first is named and found
            "top5_loc_err": 100 / 3,  # IoU 0.5 is enough
            "gt_known_loc_err": 0,
            "max_box_acc": 100 / 3,  # one of three at either threshold
            # any box: IoU 0.3: 2 at τ 0, 2 at τ 0.5; 0.5: 2 at τ 0; 0.7: 1 at τ 0
            "max_box_acc_v2": 100 * (2 + 2 + 1) / 9,
        }
    )


def test_each_iou_of_v2_has_its_own_threshold() -> None:
    curve = np.array([[0.35, 0.0], [0.35, 0.75]], np.float32)
    figures = metrics.figures(metrics.Scored(curve_any=curve), bootstrap=0, seed=0)
    assert list(figures) == ["max_box_acc_v2"]
    assert figures["max_box_acc_v2"].value == pytest.approx((100 + 50 + 50) / 3)


def test_iou_at_the_limit_counts_in_single_precision() -> None:
    exact = np.array([[3 / 10, 7 / 10, 0.5]], np.float32)
    for delta in (0.3, 0.5, 0.7):
        assert metrics.hits(exact, delta).sum() == sum(v >= delta for v in (0.3, 0.7, 0.5))


def test_images_without_boxes_are_left_out_of_the_box_figures() -> None:
    nan = np.full((1, 2), np.nan, np.float32)
    with_one = summary(
        labels=np.array([0, 1, 2, 0]),
        topk=np.array([[0, 1], [2, 1], [0, 1], [0, 1]]),
        iou_true=np.array([0.6, 0.5, 0.9, np.nan]),
        iou_predicted=np.array([0.6, 0.7, 0.1, np.nan]),
        curve_largest=np.concatenate([CURVE, nan]),
        curve_any=np.concatenate([CURVE + np.float32(0.1), nan]),
    )
    before = summary()
    assert with_one["top1_cls_err"].value == 50
    for name in ("top1_loc_err", "top5_loc_err", "gt_known_loc_err", "max_box_acc_v2"):
        assert with_one[name].value == before[name].value


def test_without_any_box_there_are_no_box_figures() -> None:
    none = np.full(3, np.nan)
    figures = summary(
        iou_true=none, iou_predicted=none, curve_largest=CURVE * np.nan, curve_any=CURVE * np.nan
    )
    assert list(figures) == ["top1_cls_err", "top5_cls_err"]


def test_same_seed_same_interval() -> None:
    assert summary() == summary()
    assert summary() != summary(seed=1)
    first = summary(bootstrap=0)["top1_cls_err"]
    assert first.low == first.value == first.high


def test_the_interval_is_that_of_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(5)
    n = 150
    topk, labels = rng.integers(0, 2, (n, 1)), np.zeros(n, int)
    curve = rng.random((n, 4)).astype(np.float32)
    iou = curve[:, 0]
    figures = summary(
        150,
        9,
        labels=labels,
        topk=topk,
        iou_true=iou,
        iou_predicted=iou,
        curve_largest=curve,
        curve_any=curve,
    )
    drawn: dict[str, list[float]] = {"top1_loc_err": [], "max_box_acc": []}
    generator = np.random.default_rng(9)
    for size in (100, 50):
        for picked in generator.integers(0, n, (size, n)):
            right = [topk[i, 0] == 0 and iou[i] >= 0.5 for i in picked]
            drawn["top1_loc_err"].append(100 - 100 * float(np.mean(right)))
            drawn["max_box_acc"].append(
                max(100 * float(np.mean(curve[picked, k] >= 0.5)) for k in range(4))
            )
    for name, values in drawn.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert (figures[name].low, figures[name].high) == pytest.approx((low, high))


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(1)
    a = (rng.random(400) < 0.4).astype(float)
    b = a.copy()
    b[np.flatnonzero(a)[:20]] = 0  # b mends 20 of a's mistakes, makes no new one
    b[7] = np.nan
    figures = metrics.paired_difference(a, b, bootstrap=500, seed=0)
    difference = figures["difference"]
    assert difference.value == pytest.approx(figures["b"].value - figures["a"].value)
    assert difference.high < 0
    assert figures["a"].high - figures["a"].low > 2 * (difference.high - difference.low)


def test_box_accuracy_of_the_curve() -> None:
    curve = np.concatenate([CURVE, np.full((1, 2), np.nan, np.float32)])
    assert metrics.box_accuracy(curve, 0.5).tolist() == pytest.approx([100 / 3, 100 / 3])
    assert metrics.box_accuracy(curve, 0.1).tolist() == [100, 100]
