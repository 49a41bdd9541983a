"""Pictures that stay on the disk: sets too large for memory, decoded as they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

AHEAD = 4  # batches a worker decodes before they are asked for


class Unreadable(ValueError):
    """A picture cannot be read in the middle of a training. The message names the file and what to do."""


class Pictures:
    """uint8 [N, C, H, W] in N files; stands where a DataSet has a tensor, and is read in batches alone."""

    def __init__(
        self,
        base: Path,
        files: Sequence[str],
        shape: tuple[int, int, int],
        read: Callable[[Path, int, int], NDArray[np.uint8]],
    ) -> None:
        """read: (file, size, channels) -> uint8 [C, size, size]."""
        self.base, self.files, self.read = base, list(files), read
        self.shape = (len(self.files), *shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> Pictures:
        """Those of the rows: a slice, or indices."""
        index = range(len(self))[rows] if isinstance(rows, slice) else rows
        return Pictures(self.base, [self.files[int(i)] for i in index], self.shape[1:], self.read)

    def to(self, device: Any) -> Pictures:
        return self

    def one(self, index: int) -> NDArray[np.uint8]:
        channels, size = self.shape[1:3]
        return self.read(self.base / self.files[index], size, channels)

    def batches(self, order: Sequence[Sequence[int]], workers: int | None = None) -> Iterator[torch.Tensor]:
        """uint8 [B, C, H, W] for each list of rows in the order given, decoded ahead by worker processes.

        Raises Unreadable, one line, for a file that cannot be read.
        """
        import torch
        from torch.utils.data import DataLoader, Dataset

        pictures = self

        class Each(Dataset[Any]):
            def __getitems__(self, rows: list[int]) -> torch.Tensor | str:
                try:
                    return torch.from_numpy(np.stack([pictures.one(i) for i in rows]))
                except ValueError as e:  # a worker's own exception would come back as its traceback
                    return str(e)

            def __getitem__(self, i: int) -> Any:
                return self.__getitems__([i])

        count = min(os.cpu_count() or 1, 16) if workers is None else workers
        more: dict[str, Any] = {"prefetch_factor": AHEAD} if count else {}
        own = torch.Generator()  # else it would draw from torch's, and change what is drawn after it
        lists = [[int(i) for i in rows] for rows in order]
        more |= {"num_workers": count, "collate_fn": same, "generator": own}
        for batch in DataLoader(Each(), batch_sampler=lists, **more):
            if isinstance(batch, str):
                raise Unreadable(batch)
            yield batch


def same(x: Any) -> Any:
    return x
