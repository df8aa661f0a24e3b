"""Class activation maps: the method that all others here change.

B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba, "Learning Deep Features for Discriminative
Localization", CVPR 2016. Equation numbers are those of thesis chapter 5.
Departs from the paper: conv6 has one group and no dropout follows the pooling, as in later ports.
"""

from pipeline.methods import base
from pipeline.params import Section


class Params(Section):
    """CAM has no settings of its own."""


class Method(base.Method):
    params: Params
