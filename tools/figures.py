"""The thesis's figures for the trained model: PNG and PDF, photographs at equal heights.

wsol figures                           all, into metrics/figures
wsol figures thresholds channels       some
wsol figures --images 6 --out plates   more photographs, elsewhere

attention   attention maps at a plug point and their masks from 0.9 to 0.1 (thesis, figure 17)
comparison  CAM beside the model, same images (figures 18, 21 and 30)
channels    channels of positive and of negative weight (figure 24)
negative    the map without and with its negative channels (figure 27)
thresholds  the boxes of several thresholds (figure 25)
two_stage   the box chosen in two stages, and every candidate's variance (figure 31)
branches    how often each plug point takes which branch (numbers of figures 14 to 16)

Needs what `dvc repro` leaves; `comparison` also a CAM: `ablate.run: [methods-cam]` or `[core]`.
"""

import argparse
from pathlib import Path

from pipeline.errors import UserError
from pipeline.output_folder import OutputFolder
from stages.layout import METRICS, MODELS, PREPARED

NAMES = (
    *("attention", "comparison", "channels", "negative", "thresholds", "two_stage", "branches"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figures", nargs="*", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--out", type=Path, default=METRICS / "figures", help="folder (default %(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=4, help="photographs of a figure (default %(default)s)"
    )
    parser.add_argument(
        "--point",
        help="plug point of `attention` (default: the method's second-last, or stride16_late)",
    )


def main(options: argparse.Namespace) -> None:
    for name in options.figures:
        if name not in NAMES:
            raise UserError(f"figure is {name!r}; allowed: {', '.join(NAMES)}")
    if options.images < 1:
        raise UserError(f"--images is {options.images}; allowed: a whole number >= 1")
    out = OutputFolder.checked(options.out, "wsol figures", (MODELS, PREPARED))
    from tools import figure_plates  # torch: after the arguments are known to be good

    figure_plates.make(options.figures or NAMES, out, options.images, options.point)
