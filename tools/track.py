"""MLflow's runs and the journals behind them: say what waits for delivery, or deliver it.

wsol track status
wsol track sync

sync delivers what a dead server missed, and makes runs for results that came out of the DVC cache
without a training. It is idempotent.
"""

import argparse

from pipeline import restore
from pipeline.cache import project_root
from pipeline.tracking import sync
from stages.layout import METRICS, MODELS


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="status | sync")
    commands.add_parser("status", help="say what waits for delivery")
    deliver = commands.add_parser("sync", help="deliver it")
    deliver.add_argument("--to", metavar="URI", help="another MLflow than each run began with")
    deliver.add_argument(
        "--again", action="store_true", help="also what was delivered before: a store was lost"
    )
    deliver.add_argument(
        "--experiments",
        action="store_true",
        help="make runs for all DVC experiments of this repository, not only for the workspace",
    )


def main(options: argparse.Namespace) -> None:
    if options.action == "status":
        sync.status(project_root(), print)
        return
    sync.sync(project_root(), print, to=options.to, again=options.again)
    restore.restore_all(METRICS, MODELS, print, experiments=options.experiments)
