import numpy as np
import pytest

from probbnn.inference.thinning import capacity_for, kept, slot


@pytest.mark.parametrize("capacity", [2, 4, 16])
def test_what_is_kept_is_evenly_spaced_and_stands_where_it_is_looked_for(capacity):
    buffer = np.full(capacity + 1, -1)
    for number in range(140):
        buffer[int(slot(np.int32(number), capacity))] = number
        numbers, slots = kept(number + 1, capacity)
        assert buffer[slots].tolist() == numbers.tolist()
        assert len(set(np.diff(numbers))) <= 1
        assert number < capacity or capacity / 2 < len(numbers) <= capacity


def test_nothing_is_kept_of_nothing():
    assert kept(0, 4)[0].tolist() == []


def test_capacities_are_powers_of_two():
    assert [capacity_for(n) for n in (0, 1, 3, 4, 1_023, 1_024)] == [2, 2, 2, 4, 512, 1_024]
