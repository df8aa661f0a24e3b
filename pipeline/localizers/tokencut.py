"""TokenCut: the normalised cut of the graph of an image's cells; nothing is fitted.

Y. Wang, X. Shen, Y. Yuan, Y. Du, M. Li, S. Hu, J. Crowley, D. Vaufreydaz, "TokenCut: Segmenting Objects in Images
and Videos with Self-supervised Transformer and Normalized Cut", CVPR 2022: A_ij = 1 where cos(F_i, F_j) > τ, else
ε; v the eigenvector of the second smallest eigenvalue of (D − A) v = λ D v; the object is where v > mean(v), on
the side of the largest |v|. Departs from the paper: any backbone's last map, in place of keys of a transformer;
on maps behind a ReLU, whose vectors all point the same way, they are centred first (`center`).
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.localizers import base
from pipeline.methods.base import Outputs, full_precision
from pipeline.params import Section

APART = 1e-5
"""ε: the weight of an edge between cells that are not alike."""


class Params(Section):
    """The graph."""

    similarity: Annotated[float, Field(gt=-1, lt=1)]
    """τ: 0.2 in the paper, on uncentred keys of a transformer."""
    center: bool
    """Subtract the image's mean feature vector before the cosine."""


class Localizer(base.Localizer):
    params: Params
    needs_fit = False

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        F = features[base.LAST]
        with full_precision(F):
            rows = base.cells(F)
            rows = rows - rows.mean(1, keepdim=True) if self.params.center else rows
            cut = foreground(second_eigenvector(affinity(rows, self.params.similarity)))
        return base.same_for_all(cut.unflatten(1, F.shape[2:]).to(F.device), classes)


def affinity(rows: Tensor, similarity: float) -> Tensor:
    """A: rows [B, n, C] → [B, n, n]."""
    unit = normalize(rows, dim=2)
    return torch.where(unit @ unit.mT > similarity, 1.0, APART)


def second_eigenvector(A: Tensor) -> Tensor:
    """v [B, n] of (D − A) v = λ D v, by way of the symmetric D^-½ A D^-½, in double precision on the CPU."""
    A = A.cpu().double()
    root = A.sum(2).rsqrt()
    vectors = torch.linalg.eigh(root[:, :, None] * A * root[:, None]).eigenvectors
    return vectors[:, :, -2] * root if A.shape[1] > 1 else torch.zeros_like(root)


def foreground(v: Tensor) -> Tensor:
    """v − mean(v) [B, n] in units of its deviation, with the sign that makes the cell of the largest |v| object."""
    above = v - v.mean(1, keepdim=True)
    peak = above.gather(1, v.abs().argmax(1, keepdim=True))
    deviation = above.std(1, correction=0, keepdim=True)
    return (above * torch.where(peak < 0, -1, 1) / torch.where(deviation > 0, deviation, 1)).float()
