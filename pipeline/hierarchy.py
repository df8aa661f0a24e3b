"""Which family and order each class belongs to: from a table, or by clustering what the classes look like."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.errors import UserError

BIRDS = Path(__file__).with_name("cub_taxonomy.csv")
COLUMNS = ("class", "family", "order")


@dataclass(frozen=True)
class Hierarchy:
    """Index of each class's family and order, and where they are from."""

    family: list[int]
    order: list[int]
    source: str

    def counts(self) -> str:
        return (
            f"{len(self.family)} classes, {len(set(self.family))} families, "
            f"{len(set(self.order))} orders"
        )


def of_classes(
    class_names: list[str], file: str | None, limits: tuple[int, int]
) -> Hierarchy | None:
    """From the CSV `file`, or the birds' own if it has all the classes; None if there is no table.

    limits: the most families and orders. Raises UserError for a table that lacks a class or has more.
    """
    path = Path(file) if file is not None else BIRDS
    where = f"{path} (params.yaml: methods.danet.hierarchy)"
    try:
        with path.open(newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where} cannot be read ({error})") from error
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise UserError(f"{where} has no columns {', '.join(COLUMNS)}")
    table = {row["class"]: (row["family"], row["order"]) for row in rows}
    if missing := [name for name in class_names if name not in table]:
        if file is None:
            return None
        raise UserError(f"{where} lacks {len(missing)} classes (first: {missing[0]})")
    families, orders = zip(*(table[name] for name in class_names), strict=True)
    for kind, names, limit in (("families", families, limits[0]), ("orders", orders, limits[1])):
        if len(set(names)) > limit:
            raise UserError(
                f"{where} has {len(set(names))} {kind}; params.yaml: methods.danet.{kind} allows {limit}"
            )
    return Hierarchy(
        _numbered(families), _numbered(orders), f"families and orders from {path.name}"
    )


def _numbered(names: tuple[str, ...]) -> list[int]:
    index = {name: k for k, name in enumerate(sorted(set(names)))}
    return [index[name] for name in names]


def clustered(features: Tensor, limits: tuple[int, int]) -> Hierarchy:
    """Ward clusters of the classes' feature vectors [K, C], and clusters of those: K/5 and K/15 of them."""
    vectors = features.numpy().astype(np.float64)
    count = len(vectors)
    family = _clusters(vectors, min(limits[0], -(-count // 5)))
    centres = np.stack([vectors[family == k].mean(0) for k in range(family.max() + 1)])
    order = _clusters(centres, min(limits[1], -(-len(centres) // 3)))[family]
    return Hierarchy(family.tolist(), order.tolist(), "families and orders by clustering features")


def _clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering  # here, since it takes long to import

    if count < 2 or len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    labels: np.ndarray = AgglomerativeClustering(count).fit_predict(vectors)
    return labels
