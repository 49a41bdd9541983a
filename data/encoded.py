"""Pictures kept as JPEG files one after the other in an npz: jpeg uint8 [bytes], offsets [N+1], y [N]."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode(source: Mapping[str, NDArray[Any]], path: Path, size: int) -> NDArray[np.uint8]:
    """All pictures of an encoded file, [N, size, size, 3]. Decoders may differ by a grey level.

    Picture i is the file jpeg[offsets[i] : offsets[i + 1]]. path is named where something is wrong.
    """
    from PIL import Image

    blob, offsets, n = source["jpeg"].tobytes(), source["offsets"], len(source["y"])
    if offsets.shape != (n + 1,):
        raise ValueError(f"{path}: {n} labels need {n + 1} offsets, not {offsets.shape}; get the file again")
    x = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        try:
            with Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])) as image:
                if image.size != (size, size):  # numpy would spread a picture of one pixel over all
                    raise ValueError(f"it has {image.size[0]}x{image.size[1]} pixels, not {size}x{size}")
                x[i] = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as e:
            raise ValueError(f"{path}: picture {i} cannot be decoded ({e}); get the file again") from e
    return x


def check_labels(y: NDArray[Any], classes: int, where: Path | str) -> NDArray[np.int64]:
    """The labels y as int64 [N]. Raises ValueError unless all are whole numbers from 0 to classes - 1."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{where}: labels must be whole numbers [N], not {y.dtype} {y.shape}")
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise ValueError(f"{where}: the label {wrong[0]} is not one of 0 to {classes - 1}")
    return y.astype(np.int64)
