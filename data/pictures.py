"""Colour pictures beyond CIFAR: Imagenette at 64x64, 100 classes of Tiny ImageNet at 32x32, SVHN.

The official test labels of Imagenette and Tiny ImageNet do not exist or are not published: their official
validation pictures are the test part here, and validation rows come from the training pictures.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store
from data.encoded import check_labels, decode

Built = tuple[dict[str, NDArray[Any]], dict[str, Any]]

IMAGENETTE = {  # wnid -> class, in the order of the labels
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
TINY_CLASSES, TINY_ROWS = 100, 200  # the first classes in wnid order, training pictures of each
IMAGENET_LICENCE = "pictures under ImageNet's terms: non-commercial research only"
AS_TEST = "the test part is the official validation set"

SVHN_OPTIONS = {"extra": False, "validation": None}
SVHN_VALIDATION = {"train": 400, "extra": 200}  # rows of each class: Arpit et al. 2016, section 5
SVHN_ROWS = {"train": 73_257, "extra": 531_131, "test": 26_032}


def find_imagenette64(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The official folder imagenette2-160 (train/<wnid>/*, val/<wnid>/*), or the two encoded files."""
    base = root / "imagenette2-160"
    if not base.is_dir():
        return _encoded_files(root, "imagenette64")
    folders = [base / part / wnid for part in ("train", "val") for wnid in IMAGENETTE]
    return "imagenette64_folder", [f for folder in folders for f in _pictures_of(folder)]


def build_imagenette64(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    if variant == "imagenette64":
        arrays, classes = _encoded(files, 64, len(IMAGENETTE))
        how = "JPEG twice, quality 80 at last, from 224x224"
    else:
        numbers = {wnid: i for i, wnid in enumerate(IMAGENETTE)}
        parts = {"train": "train", "val": "test"}
        labelled = [(f, parts[f.parent.parent.name], numbers[f.parent.name]) for f in files]
        arrays, classes = _from_files(labelled, 64, box=False), list(IMAGENETTE.values())
        how = "from pictures of 160 pixels at the shorter side"
    return arrays, {
        "classes": classes,
        "source": "Imagenette v2, Howard 2019",
        "licence": IMAGENET_LICENCE,
        "notes": [
            f"pictures squashed to 64x64 whatever their shape ({how}): no published results; {AS_TEST}"
        ],
    }


def find_tinyimagenet100(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The official folder tiny-imagenet-200, or the two encoded files.

    Of the folder, TINY_ROWS training pictures a class are drawn, always the same.
    """
    base = root / "tiny-imagenet-200"
    if not base.is_dir():
        return _encoded_files(root, "tinyimagenet100_32")
    wnids = sorted(d.name for d in (base / "train").glob("n*"))[:TINY_CLASSES]
    if len(wnids) < TINY_CLASSES:
        raise ValueError(f"{base / 'train'} has {len(wnids)} classes: unpack tiny-imagenet-200.zip again")
    rng = np.random.RandomState(0)  # numpy has frozen its stream
    files = []
    for wnid in wnids:
        pictures = _pictures_of(base / "train" / wnid / "images")
        files += [pictures[i] for i in np.sort(rng.permutation(len(pictures))[:TINY_ROWS])]
    of_val = _tiny_val(base / "val" / "val_annotations.txt")
    files += [base / "val" / "images" / name for name, wnid in sorted(of_val.items()) if wnid in set(wnids)]
    for f in (base / "words.txt", *files):
        if not f.is_file():
            raise ValueError(f"{f} is missing: unpack tiny-imagenet-200.zip again")
    return "tinyimagenet100_folder", [*files, base / "val" / "val_annotations.txt", base / "words.txt"]


def build_tinyimagenet100(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    if variant == "tinyimagenet100_32":
        arrays, classes = _encoded(files, 32, TINY_CLASSES)
        how = "JPEG quality 88"
    else:
        *pictures, annotations, words = files
        of_val = _tiny_val(annotations)
        wnids = [of_val.get(f.name) or f.parent.parent.name for f in pictures]
        numbers = {wnid: i for i, wnid in enumerate(sorted(set(wnids)))}
        parts = ["test" if f.name in of_val else "train" for f in pictures]
        labelled = list(zip(pictures, parts, (numbers[w] for w in wnids), strict=True))
        arrays = _from_files(labelled, 32, box=True)
        names = dict(line.split("\t", 1) for line in words.read_text().splitlines() if "\t" in line)
        classes = [names.get(wnid, wnid).split(",")[0].strip() for wnid in numbers]
        how = "no further JPEG; another draw than that of tinyimagenet100_32"
    return arrays, {
        "classes": classes,
        "source": "Tiny ImageNet (CS231n), its first 100 classes",
        "licence": IMAGENET_LICENCE,
        "notes": [
            f"not all of Tiny ImageNet: 100 of 200 classes, {TINY_ROWS} of 500 training pictures of each, "
            f"64x64 reduced to 32x32 ({how}): no published results; {AS_TEST}"
        ],
    }


def _tiny_val(path: Path) -> dict[str, str]:
    """File name -> wnid of the validation pictures: the first two columns."""
    try:
        rows = [line.split("\t") for line in path.read_text().splitlines() if line]
        return {row[0]: row[1] for row in rows}
    except (OSError, UnicodeDecodeError, IndexError) as e:
        raise ValueError(f"{path} cannot be read ({e}): unpack tiny-imagenet-200.zip again") from e


def _pictures_of(folder: Path) -> list[Path]:
    found = sorted(f for f in folder.glob("*") if f.suffix.lower() in (".jpeg", ".jpg"))
    if not found:
        raise ValueError(f"{folder} has no JPEG pictures: unpack the official archive again")
    return found


def _from_files(labelled: Sequence[tuple[Path, str, int]], size: int, box: bool) -> dict[str, NDArray[Any]]:
    """x_<part> uint8 [N, 3, size, size] and y_<part> of these (file, part, label).

    Pictures are squashed by a box filter or that of Lanczos, whatever their shape. Grey ones become RGB.
    """
    from PIL import Image

    method = Image.Resampling.BOX if box else Image.Resampling.LANCZOS
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        mine = [(f, label) for f, p, label in labelled if p == part]
        x = np.empty((len(mine), 3, size, size), np.uint8)
        for i, (f, _) in enumerate(mine):
            try:
                with Image.open(f) as image:
                    x[i] = np.asarray(image.convert("RGB").resize((size, size), method)).transpose(2, 0, 1)
            except (OSError, ValueError) as e:
                raise ValueError(f"{f} cannot be read as a picture ({e}): unpack it again") from e
        arrays |= {f"x_{part}": x, f"y_{part}": np.array([label for _, label in mine], np.int64)}
    return arrays


def _encoded_files(root: Path, name: str) -> tuple[str, list[Path]] | None:
    for folder in (root / name, root):
        files = [folder / f"{name}_{part}_jpeg.npz" for part in ("train", "val")]
        if all(f.is_file() for f in files):
            return name, files
    return None


def _encoded(files: list[Path], size: int, classes: int) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays of a training and a validation file (our test part), and the class names in them."""
    arrays: dict[str, NDArray[Any]] = {}
    names = []
    for part, path in zip(("train", "test"), files, strict=True):
        source = store.read(path, "jpeg", "offsets", "y", "class_names")
        names.append([str(name) for name in source["class_names"]])
        if len(names[-1]) != classes or names[-1] != names[0]:
            raise ValueError(
                f"{path} names {len(names[-1])} classes; {classes} are expected, the same in both files; "
                "get the files again"
            )
        arrays[f"y_{part}"] = check_labels(source["y"], classes, path)
        arrays[f"x_{part}"] = np.ascontiguousarray(decode(source, path, size).transpose(0, 3, 1, 2))
    return arrays, names[0]


def find_svhn(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """train, test and with extra=true extra_32x32.mat. Checks the options."""
    extra, validation = options["extra"], options["validation"]
    if not isinstance(extra, bool):
        raise ValueError(f"svhn: extra must be true or false, not {extra!r}")
    if validation not in (None, "source"):
        raise ValueError(f"svhn: validation must be null or source, not {validation!r}")
    if validation and not extra:
        raise ValueError("svhn: validation=source takes pictures from the extra ones, too: give extra=true")
    for folder in (root / "svhn", root / "SVHN", root):
        files = [folder / f"{part}_32x32.mat" for part in ("train", "test", *(["extra"] if extra else []))]
        if all(f.is_file() for f in files):
            return "svhn", files
    return None


def build_svhn(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    """Memory with extra=true: about 4 GB at the peak, the pictures twice."""
    x_test, y_test = _mat(files[1])
    sources = {"train": _mat(files[0])}
    if options["extra"]:
        sources["extra"] = _mat(files[2])
    rng = np.random.RandomState(0)  # numpy has frozen its stream
    chosen = {part: np.zeros(len(y), bool) for part, (_, y) in sources.items()}
    if options["validation"] == "source":
        for (part, (_, y)), path in zip(sources.items(), (files[0], files[2]), strict=True):
            for c in range(10):
                rows, n = np.flatnonzero(y == c), SVHN_VALIDATION[part]
                if len(rows) <= n:
                    raise ValueError(f"{path} has {len(rows)} pictures of the digit {c}, not more than {n}")
                chosen[part][rng.permutation(rows)[:n]] = True
    arrays: dict[str, NDArray[Any]] = {"x_test": np.ascontiguousarray(x_test), "y_test": y_test}
    for part, held in (("train", False), ("val", True)):
        rows_of = {source: np.flatnonzero(mask == held) for source, mask in chosen.items()}
        if part == "val" and options["validation"] is None:
            break
        x = np.empty((sum(map(len, rows_of.values())), 3, 32, 32), np.uint8)
        begin = 0
        for source, rows in rows_of.items():
            for some in np.array_split(rows, len(rows) // 10_000 + 1):  # a piece at a time: no third copy
                x[begin : begin + len(some)] = sources[source][0][some]
                begin += len(some)
        arrays[f"x_{part}"] = x
        arrays[f"y_{part}"] = np.concatenate([sources[s][1][rows] for s, rows in rows_of.items()])
    notes = []
    if options["extra"]:
        notes.append("the training part includes the extra pictures, which are easier than those of train")
    if options["validation"]:
        notes.append(
            f"{SVHN_VALIDATION['train']} training and {SVHN_VALIDATION['extra']} extra pictures of each "
            "digit validate, a fixed draw; val_fraction is not used"
        )
    official = sum(SVHN_ROWS[part] for part in sources)
    if options["validation"]:
        official -= 10 * sum(SVHN_VALIDATION.values())
    return arrays, {
        "classes": list("0123456789"),
        "source": "SVHN (cropped digits), Netzer et al. 2011",
        "licence": "non-commercial use only",
        "notes": notes,
        "rows": (official, SVHN_ROWS["test"]),
    }


def _mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 [N, 3, 32, 32] (a view) and digits [N] of a MATLAB file with X [32, 32, 3, N], y [N, 1].

    In the file, the digit 0 has the label 10.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        source = loadmat(path, variable_names=["X", "y"])
        x, y = source["X"], source["y"].reshape(-1)
    except (MatReadError, OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error) as e:
        raise ValueError(f"{path} cannot be read ({type(e).__name__}: {e}); download it again") from e
    if x.dtype != np.uint8 or x.shape != (32, 32, 3, len(y)):
        raise ValueError(f"{path} does not hold SVHN: pictures are {x.dtype} {x.shape}, labels {y.shape}")
    labels = check_labels(y, 11, path)
    if (labels == 0).any():
        raise ValueError(f"{path}: the label 0 is not one of 1 to 10 (10 is the digit 0)")
    return x.transpose(3, 2, 0, 1), labels % 10
