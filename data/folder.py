"""The user's own pictures in <path>/train/<class>/, <path>/test/<class>/ and perhaps <path>/val/<class>/.

Without a folder test, val is the test set and a slice of train the validation set: ImageNet's layout.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataSetMissing
from data.stream import Pictures

OPTIONS = {"path": None, "size": 28, "channels": 1}
LIMIT = 4 << 30  # bytes of pictures kept in memory; a larger set is read from the disk as it is needed
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
LAYOUT = "pictures belong into train/<class>/ and test/<class>/"


def find_folder(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """All picture files, part by part and class by class. The path is the user's, not below the data root."""
    if not options["path"]:
        raise ValueError(f"data set folder needs the option path=DIR; in it, {LAYOUT}")
    size, channels = options["size"], options["channels"]
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1024:
        raise ValueError(f"folder: size must be a whole number of pixels from 1 to 1024, not {size!r}")
    if channels not in (1, 3):
        raise ValueError(f"folder: channels must be 1 (grey) or 3 (colour), not {channels!r}")
    base = Path(options["path"])
    if not base.is_dir():
        raise DataSetMissing(f"the folder {base} does not exist; {LAYOUT} of it")
    for part in ("train", "test"):
        if part not in _parts(base):
            raise DataSetMissing(f"{base} has no folder {part}; {LAYOUT}")
    classes = class_names(base / "train")
    if len(classes) < 2:
        raise ValueError(
            f"{base / 'train'} has {len(classes)} class folders, at least 2 are needed; {LAYOUT}"
        )
    files = []
    for folder in _parts(base).values():
        for other in set(class_names(folder)) - set(classes):
            raise ValueError(f"{folder / other}: the class {other} is not in {base / 'train'}")
        for name in classes:
            pictures = picture_files(folder / name)
            if not pictures:
                raise ValueError(
                    f"{folder / name} has no pictures ({', '.join(sorted(ENDINGS))}); "
                    "every class needs some in every part"
                )
            files += pictures
    return "folder", files


def _parts(base: Path) -> dict[str, Path]:
    """Folders by part."""
    found = {part: base / part for part in ("train", "val", "test") if (base / part).is_dir()}
    if "val" in found and "test" not in found:
        found["test"] = found.pop("val")
    return found


def class_names(folder: Path) -> list[str]:
    return sorted(d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def picture_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*") if f.suffix.lower() in ENDINGS and not f.name.startswith("."))


def build_folder(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    base = Path(options["path"])
    classes = class_names(base / "train")
    number = {name: i for i, name in enumerate(classes)}
    arrays: dict[str, NDArray[Any]] = {}
    streamed = len(files) * options["size"] ** 2 * options["channels"] > LIMIT
    parts = _parts(base)
    for part, folder in parts.items():
        mine = [f for f in files if f.is_relative_to(folder)]
        if streamed:
            arrays[f"files_{part}"] = np.array([f.relative_to(base).as_posix() for f in mine])
            arrays[f"bytes_{part}"] = np.array([f.stat().st_size for f in mine])
        else:
            arrays[f"x_{part}"] = np.stack(
                [read_picture(f, options["size"], options["channels"]) for f in mine]
            )
        arrays[f"y_{part}"] = np.array([number[f.parent.name] for f in mine], dtype=np.int64)
    counts = ", ".join(f"{len(arrays[f'y_{part}']):,} {part}" for part in parts)
    notes = [
        f"own pictures from {base.name} ({counts}), made"
        f" {options['size']}x{options['size']}, {'grey' if options['channels'] == 1 else 'in colour'}"
    ]
    if streamed:
        notes.append("too large for memory: the content is known by the names and sizes of its files")
    if parts["test"].name == "val":
        notes.append("the folder val is the test set: there is no folder test")
    if "y_val" in arrays:
        notes.append("validation pictures are those of the folder val; val_fraction is not used")
    return arrays, {
        "classes": classes,
        "source": f"the folder {base}",
        "licence": "the user's own",
        "notes": notes,
    }


def streamed(files: NDArray[Any], options: Mapping[str, Any]) -> Pictures:
    """The pictures of these files (relative to the folder), read when they are needed."""
    size, channels = options["size"], options["channels"]
    return Pictures(Path(options["path"]), files.tolist(), (channels, size, size), read_picture)


def read_picture(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """uint8 [C, size, size]: turned as its camera says, cropped to a square around the middle, scaled.

    Every colour mode becomes grey or RGB; transparent pixels become white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image)
            if (
                picture.mode.startswith("I") or picture.mode == "F"
            ):  # 16 bits and more: Pillow would clip at 255
                deep = np.asarray(picture, dtype=np.float64)
                picture = Image.fromarray((deep * (255 / max(deep.max(), 255))).astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as e:
        raise ValueError(f"{path} is not a picture that Pillow can read; remove or replace it") from e
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:  # SyntaxError: broken PNG
        raise ValueError(f"{path} cannot be read as a picture ({e}); remove or replace it") from e
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)
