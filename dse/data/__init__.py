"""Data: from a study's `[data]` to images held as bytes, split, and dealt out in batches."""

from dse.data.load import check_data, load_data, source_parts, survey_data
from dse.data.parts import DataParts, LazyImages, Part
from dse.data.summary import DataSummary

__all__ = [
    "DataParts",
    "DataSummary",
    "LazyImages",
    "Part",
    "check_data",
    "load_data",
    "source_parts",
    "survey_data",
]
