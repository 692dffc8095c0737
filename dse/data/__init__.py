"""Data: from a study's `[data]` to images held as bytes, split, and dealt out in batches."""

from dse.data.load import load_data, source_parts
from dse.data.parts import DataParts, LazyImages, Part

__all__ = ["DataParts", "LazyImages", "Part", "load_data", "source_parts"]
