"""Office: things of an office, photographed for a shop (amazon), by a good camera (dslr) and by a webcam.

All of Office-31, or the 10 classes that Caltech-256 has as well (caltech10), as pictures or as features.
`data.domains` says what a pair of domains is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import store
from data.domains import Built, Read, Rows, check, check_size, class_files, from_folders, paired, roles
from data.encoded import check_labels, decode

OFFICE_OPTIONS = {"source": "amazon", "target": "webcam"}
OFFICE31_OPTIONS = {**OFFICE_OPTIONS, "size": 224}
OFFICE31 = {"amazon": 2_817, "dslr": 498, "webcam": 795}
CALTECH = {"amazon": 958, "caltech10": 1_123, "dslr": 157, "webcam": 295}
CALTECH_SIZE = 96
FEATURES = ("amazon", "dslr", "webcam")
OFFICE_LICENCE = "pictures belong to their owners (Saenko 2010, Griffin 2007, Gong 2012): research only"


def find_office_caltech(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """Class folders, or an encoded file a domain."""
    check("office_caltech", options, tuple(CALTECH))
    base = root / "office_caltech10"
    if all((base / d).is_dir() for d in roles(options)):
        return "office_caltech_folder", class_files("office_caltech", base, options, CALTECH_SIZE, 3)
    files = _one_each(root, "office_caltech10_img96", "img96_jpeg", options)
    return ("office_caltech", files) if files else None


def build_office_caltech(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    if variant == "office_caltech":
        read, classes = _from_encoded(files, options)
        how = "squashed to 96x96 whatever their shape (JPEG twice, quality 90 at last)"
    else:
        read, classes = from_folders(files, options, CALTECH_SIZE, 3)
        how = "cropped to squares and scaled to 96x96"
    return paired(
        "office_caltech",
        options,
        read,
        classes,
        CALTECH,
        source="the 10 classes that Office-31 and Caltech-256 share, Gong et al. 2012",
        licence=OFFICE_LICENCE,
        notes=[f"not Office-31, but 10 of its classes; pictures {how}"],
    )


def _from_encoded(files: Sequence[Path], options: Mapping[str, Any]) -> tuple[Read, list[str]]:
    classes = _same_classes(files)

    def read(domain: str, part: str) -> Rows:
        path = files[list(roles(options)).index(domain)]
        encoded = store.read(path, "jpeg", "offsets", "y")
        x = decode(encoded, path, CALTECH_SIZE).transpose(0, 3, 1, 2)
        return Rows(np.ascontiguousarray(x), check_labels(encoded["y"], len(classes), path))

    return read, classes


def find_office31(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    check("office31", options, tuple(OFFICE31))
    check_size("office31", options)
    base = root / "office31"
    if not all((base / d).is_dir() for d in roles(options)):
        return None
    return "office31", class_files("office31", base, options, options["size"], 3)


def build_office31(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    read, classes = from_folders(files, options, options["size"], 3)
    size = f"{options['size']}x{options['size']}"
    return paired(
        "office31",
        options,
        read,
        classes,
        OFFICE31,
        source="Office-31, Saenko et al. 2010",
        licence=OFFICE_LICENCE,
        notes=[f"pictures cropped to squares and scaled to {size}"],
    )


def find_office_features(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    check("office_features", options, FEATURES)
    files = _one_each(root, "office_googlenet1024", "googlenet1024", options)
    return ("office_features", files) if files else None


def build_office_features(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    """Features as they are in the files: `data.load` standardises them with the source's training rows."""
    classes = _same_classes(files)

    def read(domain: str, part: str) -> Rows:
        path = files[list(roles(options)).index(domain)]
        x, y = store.pick(path, "x", "y")
        if x.dtype.kind != "f" or x.ndim != 2 or x.shape[:1] != y.shape or not x.size:
            raise ValueError(f"{path} does not hold features: x is {x.dtype} {x.shape}, y {y.shape}")
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            raise ValueError(f"{path}: row {bad[0]} has a feature that is no number; get the file again")
        return Rows(x.astype(np.float32), check_labels(y, len(classes), path))

    return paired(
        "office_features",
        options,
        read,
        classes,
        {domain: CALTECH[domain] for domain in FEATURES},
        source="features of an ImageNet GoogLeNet, of 10 classes of Office-31 (Gong et al. 2012)",
        licence=OFFICE_LICENCE,
        notes=["features, not pictures, of 10 classes; standardised with the source's training rows alone"],
    )


def _one_each(root: Path, name: str, ending: str, options: Mapping[str, Any]) -> list[Path]:
    """A file of each domain, in the order of `roles`; none where one is missing."""
    for base in (root / name, root):
        files = [base / f"{domain}_{ending}.npz" for domain in roles(options)]
        if all(f.is_file() for f in files):
            return files
    return []


def _same_classes(files: Sequence[Path]) -> list[str]:
    named = [store.pick(f, "class_names")[0].tolist() for f in files]
    for path, names in zip(files, named, strict=True):
        if names != named[0]:
            raise ValueError(f"{path} names other classes than {files[0]}; get the files again")
    return [str(name) for name in named[0]]
