"""How many threads linear algebra takes while the search computes.

The surrogate's matrices are small, and NumPy's and SciPy's wheels each bring a BLAS of their own:
two pools that wait for one another made a draw twice as slow on two cores as one thread does. One
thread also sums in one order, whatever the machine's number of cores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  # loads the BLAS that is to be found
from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute on one thread, and give back the threads that were allowed before."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries once: it takes some milliseconds."""
    return ThreadpoolController()
