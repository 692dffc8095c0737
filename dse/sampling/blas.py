"""Limit linear algebra to one thread while the search computes.

The surrogate's matrices are small, and the wheels of NumPy and SciPy each bring a BLAS with its own
thread pool. On two cores, the pools waited for each other and a draw took twice as long as on one
thread. A single thread also sums in the same order whatever the machine's number of cores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  # loads SciPy's BLAS, so that the controller finds it
from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread within this context, then restore the previous limit."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Find the loaded BLAS libraries. Cached, because the scan takes some milliseconds."""
    return ThreadpoolController()
