import pytest

from dse.data import DataParts, load_data
from support.small_study import small_study


@pytest.fixture(scope="session")
def data() -> DataParts:
    """The small study's parts; not to be changed."""
    return load_data(small_study().data, seed=0)
