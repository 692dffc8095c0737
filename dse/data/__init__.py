"""Data: turns a study's `[data]` into images held as bytes, split into parts, in batches."""

from dse.data.load import check_data, load_data, source_parts, survey_data
from dse.data.named_transforms import transforms_of
from dse.data.opening import inputs_of
from dse.data.parts import DataParts, LazyImages, Part
from dse.data.summary import DataSummary

__all__ = [
    "DataParts",
    "DataSummary",
    "LazyImages",
    "Part",
    "check_data",
    "inputs_of",
    "load_data",
    "source_parts",
    "survey_data",
    "transforms_of",
]
