"""Stages that train or evaluate, shared by processes: `train.processes` of them here, or torchrun's.

python -m stages.train                                            # train.processes on this machine
torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m stages.train
"""

import ctypes
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pipeline import params
from pipeline.errors import UserError
from pipeline.runtime import distributed
from pipeline.runtime.devices import pick_device
from stages import entry

KEPT = "finished epochs are kept; the same command continues after them"


def run(main: Callable[[], None], description: str | None = None, kept: str = KEPT) -> None:
    """Call `main` as `entry.run` does, in as many processes as share the work."""
    is_member = "LOCAL_RANK" in os.environ
    entry.run(lambda: _member(main) if is_member else _alone_or_launched(main), description, kept)


def _alone_or_launched(main: Callable[[], None]) -> None:
    settings = params.load(method=False).train
    count = settings.processes
    if count == "auto":
        import torch

        on_gpu = pick_device(settings.device).type == "cuda"
        count = torch.cuda.device_count() if on_gpu else 1
    if count == 1:
        main()
    else:
        _launch(count)


def _launch(count: int) -> None:
    """Start this very command `count` times under torch.distributed, and end as they do."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // count)))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    # The processes report errors themselves; the launcher would add its own traceback.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    main = sys.modules["__main__"].__spec__
    assert main is not None, "stages are run by python -m"
    try:
        elastic_launch(config, sys.executable)("-m", main.name, *sys.argv[1:])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code < 0:
            raise UserError(
                f"a process that shares the work was killed ({signal.Signals(-code).name}), perhaps for want "
                "of memory; finished epochs are kept; the same command continues after them"
            ) from error
        sys.exit(code)
    except SignalException as error:
        sys.exit(128 + error.sigval)


def _member(main: Callable[[], None]) -> None:
    """One of the processes: only the first writes, tracks and talks."""
    _die_with_parent()
    share = distributed.begin(params.load(method=False).train.device)
    if not share.leads:
        os.environ["WSOL_TRACKING"] = "off"
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        main()
    except UserError:
        if not share.leads:
            time.sleep(5)  # the first process says it, if it is its mistake too, and ends us
        raise
    except KeyboardInterrupt:
        if not share.leads:
            sys.exit(130)
        raise
    distributed.end()


def _die_with_parent() -> None:
    """Let no process outlive a launcher that was killed: it would hold the GPU. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
