"""Every heatmap of the trained model: one table of errors, one picture.

wsol heatmaps                          all, into metrics/heatmaps
wsol heatmaps gradcam layercam         some

Needs what `dvc repro` leaves. Each heatmap gets a folder as evaluate writes it, so that
`wsol compare metrics/heatmaps/cam metrics/heatmaps/layercam` says whether a difference is real.
"""

import argparse
from pathlib import Path
from typing import get_args

from pipeline.errors import UserError
from pipeline.output_folder import OutputFolder
from pipeline.params.settings import HeatmapName
from stages.layout import METRICS, MODELS, PREPARED

NAMES = get_args(HeatmapName)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("heatmaps", nargs="*", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--out", type=Path, default=METRICS / "heatmaps", help="folder (default %(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=6, help="of the picture (default %(default)s)"
    )


def main(options: argparse.Namespace) -> None:
    for name in options.heatmaps:
        if name not in NAMES:
            raise UserError(f"heatmap is {name!r}; allowed: {', '.join(NAMES)}")
    out = OutputFolder.checked(options.out, "wsol heatmaps", (MODELS, PREPARED))
    from tools import heatmap_sheet  # torch: after the arguments are known to be good

    heatmap_sheet.make(options.heatmaps or NAMES, out, options.images)
