"""Class map: the method's own heatmap, or any other that `heatmap` names; nothing is fitted."""

from typing import ClassVar

from pipeline.localizers import base
from pipeline.params import Section


class Params(Section):
    """The class map has its settings in `heatmap` and `heatmaps`."""


class Localizer(base.Localizer):
    unit: ClassVar[base.Unit] = "relative"
    depths = ()
    needs_fit = False
    of_method = True
