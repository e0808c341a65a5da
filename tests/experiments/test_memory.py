"""The most memory that a block needs, of the process and of a device that keeps count."""

import time
import types

import jax
import numpy as np

from probbnn.experiments import memory
from probbnn.experiments.memory import PeakMemory


def test_memory_of_the_process():
    with PeakMemory() as peak:
        block = np.ones(40_000_000)
        time.sleep(0.1)
    assert peak.num_bytes > 0.9 * block.nbytes
    assert peak.where == "process"
    del block
    with PeakMemory() as idle:
        pass
    assert 0 <= idle.num_bytes < 100e6


class Device:
    """One that keeps count, as a GPU does."""

    in_use, record = 100, 1_000

    def memory_stats(self):
        return {"bytes_in_use": self.in_use, "peak_bytes_in_use": self.record}


def test_memory_of_a_device(monkeypatch):
    device = Device()
    monkeypatch.setattr(memory, "jax", types.SimpleNamespace(local_devices=lambda: [device]))
    with PeakMemory() as peak:
        device.in_use = 300
        time.sleep(0.1)
        device.in_use = 200
    # Seen from time to time: a record of before says nothing.
    assert peak.num_bytes == 200
    assert peak.where == "device"
    with PeakMemory() as higher:
        device.record = 5_000  # and gone again before anyone looked
    assert higher.num_bytes == 4_800


def test_a_cpu_does_not_say():
    assert jax.devices("cpu")[0].memory_stats() is None
