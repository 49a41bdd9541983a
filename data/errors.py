"""The errors of this room. Each message is one line: what is wrong, where, and what to do."""


class DataSetMissing(FileNotFoundError):
    """A data set is nowhere to be found. The message says what to get, where from, to which path, licence."""


class ChecksumMismatch(ValueError):
    """A file does not have the content that its name promises."""


class Damaged(ValueError):
    """A prepared file cannot be read (cut short, or changed by something else). Callers build it again."""
