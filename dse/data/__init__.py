"""Data: turns a study's `[data]` into images held as bytes, split into parts, in batches."""

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
