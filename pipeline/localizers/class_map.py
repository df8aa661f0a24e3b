"""Class map: the method's own heatmap, or any other that `heatmap` names; nothing is fitted.

It is read by the method, not from feature maps: `build` gives no localizer for it.
"""

from pipeline.params import Section


class Params(Section):
    """The class map has its settings in `heatmap` and `heatmaps`."""
