"""Data sets as tensors. See `data.load`; `python -m data` lists the sets and where they are."""

from data.errors import ChecksumMismatch, DataSetMissing
from data.games import is_game
from data.sets import DataSet, fingerprint, is_domains, is_table, is_text, load, locate, names, prepare

__all__ = [
    "ChecksumMismatch", "DataSet", "DataSetMissing", "fingerprint", "is_domains", "is_game", "is_table",
    "is_text", "load", "locate", "names", "prepare",
]  # fmt: skip
