"""Tox21: 12 binary tasks with gaps, as the challenge split them, and the compound clusters of DeepTox.

Features are circular fingerprints (ECFP4), from a file beside the labels or computed with RDKit from the
SMILES of a user's own copy, or DeepTox's own descriptors where JKU's archive is in the data root.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store, tables
from data.errors import DataSetMissing

# 0.025 is remembered of the challenge winners' sample script; public copies of it have 0.05.
OPTIONS = {"validation": "cv0", "min_share": 0.025, "features": "ecfp4", "path": None}
TASKS = (
    *("NR.AhR", "NR.AR", "NR.AR.LBD", "NR.Aromatase", "NR.ER", "NR.ER.LBD", "NR.PPAR.gamma"),
    *("SR.ARE", "SR.ATAD5", "SR.HSE", "SR.MMP", "SR.p53"),
)
CLUSTERS = 5
VALIDATION = (*(f"cv{k}" for k in range(CLUSTERS)), "official")
FEATURES = ("ecfp4", "ecfp4+descriptors", "deeptox")
PARTS = ("training", "validation", "test")
BITS, RADIUS = 2048, 2
SPLITS, FINGERPRINTS = "tox21_deeptox_splits.csv.gz", "tox21_deeptox_ecfp4_2048.npz"
COMPOUNDS = "tox21_compoundData.csv"
DEEPTOX = [
    f"tox21_{kind}"
    for part in ("train", "test")
    for kind in (f"labels_{part}.csv.gz", f"dense_{part}.csv.gz", f"sparse_{part}.mtx.gz")
]
LICENCE = "Tox21 challenge (NIH, EPA, FDA), public; cite Huang et al. 2016 and Mayr et al. 2016"


def find_tox21(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    tables.check_choice(options["validation"], VALIDATION, "tox21: validation")
    tables.check_choice(options["features"], FEATURES, "tox21: features")
    share = options["min_share"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ValueError(f"tox21: min_share must be a number in [0, 1), not {share!r}")
    kind = {"ecfp4": "", "ecfp4+descriptors": "_descriptors", "deeptox": "_deeptox"}[options["features"]]
    if options["path"]:
        if kind == "_deeptox":
            raise ValueError("tox21: features=deeptox are files of JKU's archive; they do not go with path=")
        if not Path(options["path"]).is_file():
            raise DataSetMissing(
                f"the file {options['path']} does not exist; tox21 reads a CSV file with a header"
            )
        return f"tox21_own{kind}", [Path(options["path"])]
    home = root / "tox21"
    if kind == "_deeptox":
        compounds = next((p for p in (home / COMPOUNDS, home / SPLITS) if p.is_file()), None)
        files = [home / name for name in DEEPTOX]
        return (
            ("tox21_deeptox", [compounds, *files]) if compounds and all(f.is_file() for f in files) else None
        )
    files = [home / SPLITS, home / FINGERPRINTS]
    return (f"tox21{kind}", files) if all(f.is_file() for f in files) else None


# ---- features ---------------------------------------------------------------------------------------------


def rdkit() -> Any:
    """The package RDKit, or one line about what to install."""
    try:
        import rdkit.Chem.rdFingerprintGenerator
    except ImportError as e:
        raise ValueError(
            "tox21: features from SMILES need the package RDKit, which is not installed here; "
            "pip install 'bn-survey-repro[chem]' (or pip install rdkit)"
        ) from e
    return rdkit


def molecules(smiles: list[str]) -> list[Any]:
    """RDKit's molecules; None for a SMILES that it rejects (silently: the caller counts them)."""
    chem, log = rdkit().Chem, rdkit().RDLogger
    log.DisableLog("rdApp.*")
    try:
        return [chem.MolFromSmiles(s) for s in smiles]
    finally:
        log.EnableLog("rdApp.error")


def ecfp4(mols: list[Any]) -> NDArray[np.uint8]:
    """Bits [N, 2048]: Morgan fingerprints of radius 2; all 0 for None."""
    generator = rdkit().Chem.rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    empty = np.zeros(BITS, np.uint8)
    return np.stack([empty if m is None else generator.GetFingerprintAsNumPy(m) for m in mols])


def descriptors(mols: list[Any]) -> NDArray[np.float64]:
    """RDKit's descriptors [N, D]; NaN where there is none. Ipc, which grows exponentially with the molecule
    and leaves float32, is left out.
    """
    from rdkit.Chem import Descriptors

    names = [name for name, _ in Descriptors.descList if name != "Ipc"]
    rows = [Descriptors.CalcMolDescriptors(m) if m is not None else {} for m in mols]
    return np.array([[row.get(name, np.nan) for name in names] for row in rows], np.float64)


# ---- samples ----------------------------------------------------------------------------------------------


def known_names(table: Any) -> Any:
    """The table with our names of its columns."""
    ours = {name.lower(): name for name in (*TASKS, "ID", "inchikey", "set", "CVfold", "smiles")}
    return table.rename(columns=lambda c: ours.get(c.strip().lower().replace("-", "."), c))


def read_samples(path: Path, needs: tuple[str, ...]) -> Any:
    """The CSV file as a DataFrame with the columns `needs`, set, and the 12 tasks as 0, 1 or NaN. Column
    names may be written NR-AR or NR.AR, and in any case.
    """
    table = known_names(tables.read_csv(path))
    if lacking := [c for c in ("set", *needs, *TASKS) if c not in table.columns]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(lacking)}; it has {', '.join(table.columns[:20])}"
        )
    if odd := sorted(set(table["set"].fillna("")) - set(PARTS)):
        raise ValueError(f"{path}: the column set must say {', '.join(PARTS)}, not {odd[0]!r}")
    allowed = dict.fromkeys(TASKS, range(2)) | ({"CVfold": range(CLUSTERS + 1)} if "CVfold" in needs else {})
    for name, values in allowed.items():
        number = table[name].map({f"{value}{point}": value for value in values for point in ("", ".0")})
        wrong = table[name][number.isna() & table[name].notna()]
        if len(wrong):
            row, last = wrong.index[0] + 1, values[-1]
            raise ValueError(
                f"{path}: {name} must be 0 to {last} or empty, not {wrong.iloc[0]!r} (row {row} of the data)"
            )
        table[name] = number.astype(np.float32)
    return table


def choose_rows(samples: Any, validation: str) -> dict[str, NDArray[np.int64]]:
    """Row numbers of "train", "val" and "test".

    The held-out part is the challenge's validation part, or one compound cluster of the training part; the
    rest of both trains, but for samples of a compound (InChIKey) that is held out.
    """
    part = samples["set"].to_numpy()
    if validation == "official":
        held = part == "validation"
    else:
        held = (part == "training") & (samples["CVfold"] == int(validation[2:])).to_numpy()
    key = samples["inchikey"]
    rest = (part != "test") & ~held & ~(key.isin(key[held]) & key.notna()).to_numpy()
    return {k: np.flatnonzero(rows) for k, rows in (("train", rest), ("val", held), ("test", part == "test"))}


def build_tox21(variant: str, files: list[Path], options: Mapping[str, Any]) -> tables.Built:
    own, kind = bool(options["path"]), options["features"]
    needs = ("CVfold",) if options["validation"] != "official" else ()
    if kind == "deeptox":
        samples, bits, dense = read_deeptox(files, needs)
    else:
        samples = read_samples(files[0], ("smiles", *needs))
        bits, dense, samples = fingerprints(samples, files, own, kind)
    rows = choose_rows(samples, options["validation"])
    for part, chosen in rows.items():
        if not len(chosen):
            raise ValueError(f"{files[0]}: no row is in the {part} part (validation={options['validation']})")
    x, notes = assemble(bits, dense, rows["train"], options["min_share"])
    if kind != "deeptox":
        notes.insert(
            0,
            f"circular fingerprints (ECFP4, {BITS:,} bits) in place of DeepTox's 801 dense and 272,776 "
            "sparse features: AUCs are not comparable with the paper's",
        )
        notes += [
            f"{n} SMILES that RDKit rejects have no bit set" for n in [int((~samples["parsed"]).sum())] if n
        ]
    key = samples["inchikey"]
    non_test = (samples["set"] != "test").to_numpy()
    dropped = int(non_test.sum()) - len(rows["train"]) - len(rows["val"])
    seen = int(key.iloc[rows["test"]].isin(key.iloc[rows["train"]]).sum())
    what = (
        "the challenge's validation part"
        if options["validation"] == "official"
        else f"DeepTox's compound cluster {options['validation'][2:]} of {CLUSTERS}"
    )
    notes += [
        f"validation: {what}, {len(rows['val']):,} samples; {dropped} training samples of the same compounds "
        "(InChIKey) were left out",
        f"a row is a sample, and compounds repeat; {seen} test samples are of compounds that train",
    ]
    y = samples[list(TASKS)].to_numpy(np.float32)
    for part in ("val", "test"):
        notes += tables.no_auc(part, TASKS, y[rows[part]])
    arrays = {f"{v}_{part}": a[chosen] for v, a in (("x", x), ("y", y)) for part, chosen in rows.items()}
    return arrays, {
        "classes": list(TASKS),
        "licence": LICENCE if not own else "the user's own copy",
        "source": f"Tox21 challenge, {files[0].name}",
        "error": "auc",
        "notes": notes,
    }


def fingerprints(samples: Any, files: list[Path], own: bool, kind: str) -> tuple[Any, Any, Any]:
    """(bits uint8 [N, 2048], descriptors [N, D] or None, samples with the columns parsed and inchikey)."""
    mols = molecules(samples["smiles"].fillna("").tolist()) if own or kind != "ecfp4" else []
    if own:
        samples["parsed"] = [m is not None and m.GetNumAtoms() > 0 for m in mols]
        mols = [m if ok else None for m, ok in zip(mols, samples["parsed"], strict=True)]
        if not samples["parsed"].any():
            raise ValueError(f"{files[0]}: RDKit can read none of the SMILES")
        bits = ecfp4(mols)
        if "inchikey" not in samples.columns:
            inchikey = rdkit().Chem.MolToInchiKey
            samples["inchikey"] = [
                inchikey(m) if m else s for m, s in zip(mols, samples["smiles"], strict=True)
            ]
    else:
        packed, parsed = store.pick(files[1], "fp_packed", "parsed")
        if packed.shape != (len(samples), BITS // 8) or parsed.shape != (len(samples),):
            raise ValueError(
                f"{files[1]} has fingerprints {packed.shape}, {files[0].name} {len(samples)} rows"
            )
        bits, samples["parsed"] = np.unpackbits(packed, axis=1), parsed
    return bits, descriptors(mols) if kind != "ecfp4" else None, samples


def read_deeptox(files: list[Path], needs: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """(samples, sparse features in columns, dense features) of JKU's archive, training rows first."""
    import pandas as pd
    from scipy import io, sparse

    tables_of = [
        pd.read_csv(f, index_col=0) if f.name.endswith(".csv.gz") else io.mmread(f) for f in files[1:]
    ]
    (y1, d1, s1), (y2, d2, s2) = tables_of[:3], tables_of[3:]
    for y, d, s, path in ((y1, d1, s1, files[2]), (y2, d2, s2, files[5])):
        if list(y.index) != list(d.index) or s.shape[0] != len(y):
            raise ValueError(f"{path} and the files beside it are not of the same samples; get them again")
    labels = pd.concat([y1, y2])
    compounds = known_names(pd.read_csv(files[0])).set_index("ID")
    if lacking := [c for c in ("set", "inchikey", *needs) if c not in compounds.columns]:
        raise ValueError(f"{files[0]} lacks the columns {', '.join(lacking)}")
    if not compounds.index.is_unique or not labels.index.isin(compounds.index).all():
        raise ValueError(f"{files[0]} does not name every sample of {files[1].name} once; get them again")
    samples = compounds.loc[labels.index, ["set", "inchikey", *needs]].reset_index(drop=True)
    samples[list(TASKS)] = labels[list(TASKS)].to_numpy(np.float32)
    return samples, sparse.vstack([s1, s2]).tocsc(), pd.concat([d1, d2]).to_numpy(np.float64)


def assemble(bits: Any, dense: Any, train: NDArray[np.int64], min_share: float) -> tuple[Any, list[str]]:
    """(x [N, D], notes): the dense features, and the columns of bits (an array or sparse) that are not 0 in
    at least min_share of the training rows. uint8 where all are bits.
    """
    share = np.asarray((bits[train] != 0).mean(axis=0)).ravel()
    kept = np.flatnonzero(share >= min_share)
    x = bits[:, kept]
    x = x if isinstance(x, np.ndarray) else x.toarray().astype(np.float32)
    notes = [
        f"{len(kept):,} of {len(share):,} sparse columns stay: set in at least {min_share:.1%} of the "
        "training rows"
    ]
    if dense is not None:
        dense = np.where(
            np.abs(dense) < np.finfo(np.float32).max, dense, np.nan
        )  # infinity is as good as empty
        empty = np.isnan(dense)
        filled = np.where(empty[train], 0, dense[train]).sum(axis=0) / np.maximum(
            (~empty[train]).sum(axis=0), 1
        )
        x = np.concatenate([np.where(empty, filled, dense).astype(np.float32), x.astype(np.float32)], axis=1)
        notes.append(
            f"{dense.shape[1]} dense descriptors; {empty.sum():,} empty cells are their column's "
            "training mean"
        )
    if not x.shape[1]:
        raise ValueError(f"tox21: no column is set in {min_share:.1%} of the training rows; lower min_share")
    return x, notes
