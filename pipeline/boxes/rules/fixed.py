"""One threshold for all images, set beforehand (0.2 of the map's range in CAM and thesis §5.2)."""

from pipeline.boxes.rules import base


class Rule(base.BoxRule):
    """The base class as it is."""

    sentence = "threshold {threshold:g}, set beforehand for all images"
