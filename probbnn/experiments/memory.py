"""The most memory that a block of code needs."""

import gc
import threading

import jax

__all__ = ["PeakMemory"]

_SECONDS = 0.02


class PeakMemory:
    """Highest use of memory within a ``with`` block, above that at its start.

    It is the device's own memory where the device says how much is in use, and the resident memory
    of this process otherwise, as on a CPU.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        self._device = jax.local_devices()[0]
        import psutil  # an extra, looked for when a run begins

        self._process = psutil.Process()
        self._record_at_start = self._record_of_device()
        self._before = self._highest = self._in_use()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        # The device's record is exact, and of its whole life: it counts if it was set here.
        record = self._record_of_device()
        if record > self._record_at_start:
            self._highest = max(self._highest, record)

    @property
    def num_bytes(self) -> int:
        """The highest use, in bytes."""
        return self._highest - self._before

    @property
    def where(self) -> str:
        """Whose memory it is: "device" or "process"."""
        return "process" if self._statistics() is None else "device"

    def _statistics(self) -> dict[str, int] | None:
        return self._device.memory_stats() or None

    def _record_of_device(self) -> int:
        return (self._statistics() or {}).get("peak_bytes_in_use", 0)

    def _in_use(self) -> int:
        statistics = self._statistics()
        if statistics is None:
            return self._process.memory_info().rss
        return statistics["bytes_in_use"]

    def _watch(self) -> None:
        while not self._done.wait(_SECONDS):
            self._highest = max(self._highest, self._in_use())
