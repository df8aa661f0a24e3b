"""CPU, memory, disk, network and GPU use while a run lasts."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping


class Sampler:
    """MLflow's own probes, read by a thread of ours: after 1, 2, 4, … then every 10 seconds.

    MLflow's thread asks the server before each sample and ends for good if it does not answer; here
    samples go wherever `receive` puts them. The first come quickly, so that a short run has some.
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another longest interval, in seconds. `fail` receives
    the error that ends the watch, if there is one.
    """

    def __init__(
        self,
        receive: Callable[[Mapping[str, float]], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._receive, self._fail = receive, fail
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="system-metrics")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when no more samples will come."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        try:
            self._sample()
        except Exception as error:
            self._fail(error)

    def _sample(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        probes = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with contextlib.suppress(ImportError, RuntimeError):  # no NVIDIA GPU, or no driver
            probes.append(GPUMonitor())
        longest = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", 10))
        pause = min(1.0, longest)
        while not self._stop.wait(pause):
            values: dict[str, float] = {}
            for probe in probes:
                probe.collect_metrics()
                values |= probe.aggregate_metrics()
                probe.clear_metrics()
            self._receive(values)
            pause = min(2 * pause, longest)
