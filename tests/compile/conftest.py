"""The number of threads, put back after a test."""

import pytest

from minicnn import backend


@pytest.fixture
def threads():
    """Set the number of threads; where there are not that many, the test is skipped."""
    before = backend.get_num_threads()

    def use(count):
        try:
            backend.set_num_threads(count)
        except ValueError:
            pytest.skip("one processor")

    yield use
    backend.set_num_threads(before)
