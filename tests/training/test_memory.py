"""Shared memory and the rows in it."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalewise.errors import NotConvergedError
from stalewise.training.memory import Memory, Slots


def test_two_processes_see_one_memory():
    """A child that gets the descriptor reads what was written here, and the other way round."""
    memory = Memory(1000, 3, 2)
    memory.versions[1] = np.arange(1000)
    assert memory.versions.shape == (3, 1000) and memory.gradients.shape == (2, 1000)
    child = os.fork()
    if child == 0:
        other = Memory(*memory.shape, descriptor=os.dup(memory.descriptor))
        other.gradients[1] = 2 * other.versions[1]
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(memory.gradients[1], 2.0 * np.arange(1000))
    memory.close()


@given(st.lists(st.integers(0, 2), max_size=60))
def test_rows_are_free_when_nobody_reads_them(moves):
    """However rows are taken, held and released: one that has readers is never handed out again."""
    slots, readers = Slots(4), {}
    for move in moves:
        if move == 0 and len(readers) < 4:
            row = slots.take()
            assert row not in readers
            readers[row] = 1
        elif move == 1 and readers:
            row = min(readers)
            slots.hold(row)
            readers[row] += 1
        elif move == 2 and readers:
            row = max(readers)
            readers[row] -= 1
            assert slots.release(row) == (readers[row] == 0)
            if readers[row] == 0:
                del readers[row]
    for _ in range(4 - len(readers)):
        slots.take()
    with pytest.raises(NotConvergedError, match="no memory left"):
        slots.take()
