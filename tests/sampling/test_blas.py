from threadpoolctl import threadpool_info

from dse.sampling.blas import one_blas_thread


def _threads() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_linear_algebra_takes_one_thread_inside_and_what_it_took_before_afterwards() -> None:
    with one_blas_thread():
        inside = _threads()
    before = _threads()
    with one_blas_thread():
        pass
    assert inside
    assert set(inside) == {1}
    assert _threads() == before
