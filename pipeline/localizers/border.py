"""Border map: what does not look like the image's border; nothing is fitted.

s(u) = −cos(F(u) − μ, b), with μ the image's mean feature vector and b the mean of F − μ over the border cells;
the object is where s > 0. Fails where the object fills the border.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.localizers import base
from pipeline.methods.base import Outputs, full_precision
from pipeline.params import Section


class Params(Section):
    """The border map has no settings."""


class Localizer(base.Localizer):
    needs_fit = False

    def maps(self, features: Mapping[str, Tensor], outputs: Outputs, classes: Tensor) -> Tensor:
        with full_precision(features[base.LAST]):
            return base.same_for_all(border_map(features[base.LAST].float()), classes)


def border_map(F: Tensor) -> Tensor:
    """s [B, h, w] of feature maps [B, C, h, w]."""
    centred = F - F.mean((2, 3), keepdim=True)
    at_border = base.border((F.shape[2], F.shape[3]), F.device)
    b = centred[:, :, at_border].mean(2)[:, :, None, None]
    return -cosine_similarity(centred, b.expand_as(centred), dim=1)
