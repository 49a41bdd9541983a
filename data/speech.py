"""Spoken words as log-mel pictures: the Free Spoken Digit Dataset (8 kHz), Speech Commands v2 (16 kHz).

A picture is float32 [1, 40 bands, 100 frames] of the first second of a recording, see `log_mel`. It is not
standardised: constants of each band belong to the network's first layer, taken from the rows it trains on.
The fingerprint is of the samples, not of the pictures, whose last digits may differ between machines.
"""

import hashlib
import re
import wave
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import store
from data.encoded import check_labels
from data.tables import check_choice

Built = tuple[dict[str, NDArray[Any]], dict[str, Any]]
Samples = NDArray[np.int16]

FEATURES = 1  # the version of `log_mel`: raise it, and store.FORMAT, with any change of the pictures
BANDS, FRAMES = 40, 100
WINDOW, HOP = 0.025, 0.01  # seconds
LOWEST = 20  # Hz; the highest is half the rate
# About the power that dithered 16-bit silence has in a band, so that frames after the end of a recording look
# like a pause and not, as with 1e-10, like nothing a microphone gives: half the frames of fsdd are such
# frames and would set the deviation of every band. Neither values from 1e-10 to 1e-6 nor a fill with the
# recording's own quietest frames changed the validation error of a small network by more than its seeds do.
FLOOR = 1e-7
CHUNK = 64  # recordings transformed at once: some 80 MB at 16 kHz

FSDD_RATE = 8_000
FSDD_FOLDERS = ("free-spoken-digit-dataset", "free-spoken-digit-dataset-master", "fsdd")
FSDD_NPZ = ("fsdd/fsdd_train.npz", "fsdd/fsdd_test.npz")
FSDD_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")
FSDD_TEST_TAKES = 5  # takes 0 to 4 are the official test part
FSDD_OPTIONS = {"split": "takes"}
FSDD_SPLITS = ("takes", "speakers")
DIGITS = tuple("0123456789")

COMMANDS_RATE = 16_000
COMMANDS = "speech_commands_v0.02"
COMMANDS_NAME = re.compile(r"([0-9A-Za-z]+)_nohash_[0-9]+\.wav")
COMMANDS_VAL = 9_981  # official validation recordings
COMMANDS_WORDS = 35
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}


def mel_filters(rate: int, n_fft: int) -> NDArray[np.float64]:
    """[BANDS, n_fft // 2 + 1]: triangles of height 1, evenly spaced in HTK mel = 2595 log10(1 + Hz / 700)."""
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST, rate / 2))
    edges = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    hz = np.arange(n_fft // 2 + 1) * (rate / n_fft)
    low, middle, high = (edges[k : k + BANDS, None] for k in range(3))
    return np.maximum(0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))


def log_mel(waves: Sequence[Samples], rate: int) -> NDArray[np.float32]:
    """log(max(mel power, FLOOR)) of the first second of each recording, [N, 1, BANDS, FRAMES].

    The k-th frame is a Hann window of 25 ms around the middle of the k-th 10 ms, in an FFT of the next power
    of two. The recording (first second, in units of full scale, less its mean: an offset of the microphone
    would put a click at both ends) is followed by zeros, so a frame behind its end holds log(FLOOR).

    In numpy and double precision: a fingerprint, which may have to build the set, needs no torch. The same as
    librosa.feature.melspectrogram(center=False, htk=True, norm=None) of the padded samples.
    """
    window, hop = round(WINDOW * rate), round(HOP * rate)
    n_fft = 1 << (window - 1).bit_length()
    before, pad = (n_fft - window) // 2, (n_fft - hop) // 2
    hann = np.zeros(n_fft)
    hann[before : before + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    filters = mel_filters(rate, n_fft)
    x = np.empty((len(waves), 1, BANDS, FRAMES), np.float32)
    for begin in range(0, len(waves), CHUNK):
        some = waves[begin : begin + CHUNK]
        padded = np.zeros((len(some), rate + 2 * pad))
        for row, samples in zip(padded, some, strict=True):
            second = samples[:rate] / 32768
            row[pad : pad + len(second)] = second - second.mean()
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::hop]
        spectrum = np.fft.rfft(frames * hann)
        power = spectrum.real**2 + spectrum.imag**2  # [B, FRAMES, n_fft // 2 + 1]
        x[begin : begin + CHUNK, 0] = np.log(np.maximum(filters @ power.transpose(0, 2, 1), FLOOR))
    return x


def read_wav(path: Path, rate: int) -> Samples:
    """The samples of a wav file: 16-bit PCM, mono, at this rate. Raises ValueError for any other file."""
    try:
        with wave.open(str(path), "rb") as f:
            channels, width, found, n = f.getnchannels(), f.getsampwidth(), f.getframerate(), f.getnframes()
            raw = f.readframes(n)
    except (wave.Error, EOFError, OSError) as e:
        why = str(e) or "it ends too early"
        raise ValueError(
            f"{path} cannot be read as a wav file of 16-bit PCM ({why}); get the file again"
        ) from e
    for what, value, expected in (
        ("channels", channels, 1),
        ("bits a sample", 8 * width, 16),
        ("samples a second", found, rate),
    ):
        if value != expected:
            raise ValueError(f"{path} has {value:,} {what}, not {expected:,}; convert it or get it again")
    if len(raw) != 2 * n:
        raise ValueError(
            f"{path} is cut short: {len(raw) // 2:,} of the {n:,} samples its header promises; "
            "get the file again"
        )
    return np.frombuffer(raw, np.int16)  # wave gives them in the machine's byte order


class Pictures(NamedTuple):
    """The recordings of a part, transformed."""

    x: NDArray[np.float32]  # [N, 1, BANDS, FRAMES]
    digests: NDArray[np.uint8]  # [N, 32], sha256 of the samples
    counts: Counter[str]  # recordings that are cut, clipped, silent


def pictures(waves: Iterable[Samples], n: int, rate: int) -> Pictures:
    """The pictures of n recordings, of which no more than CHUNK are held in memory at once."""
    x, digests = np.empty((n, 1, BANDS, FRAMES), np.float32), np.empty((n, 32), np.uint8)
    counts: Counter[str] = Counter()
    rest, done = iter(waves), 0
    while some := list(islice(rest, CHUNK)):
        x[done : done + len(some)] = log_mel(some, rate)
        for samples in some:
            digest = hashlib.sha256(samples.astype("<i2").tobytes()).digest()
            digests[done] = np.frombuffer(digest, np.uint8)
            counts += Counter(cut=len(samples) > rate, clipped=clipped(samples), silent=silent(samples))
            done += 1
    assert done == n
    return Pictures(x, digests, counts)


def clipped(samples: Samples) -> bool:
    """Three consecutive samples at full scale."""
    full = (samples >= 32767) | (samples <= -32767)
    return bool((full[:-2] & full[1:-1] & full[2:]).any())


def silent(samples: Samples) -> bool:
    return bool((samples == samples[0]).all())


def _not_empty(samples: Samples, where: str) -> Samples:
    if not len(samples):
        raise ValueError(f"{where} is empty: it has no samples; get it again")
    return samples


def _not_silent(samples: Samples, where: str) -> Samples:
    if silent(_not_empty(samples, where)):
        raise ValueError(f"{where} is silent: all its samples are equal; get it again")
    return samples


def _notes(parts: Mapping[str, Pictures], rate: int) -> list[str]:
    n, counts = sum(len(p.x) for p in parts.values()), Counter[str]()
    for p in parts.values():
        counts += p.counts
    what = {"cut": "longer than a second and cut", "clipped": "clipped", "silent": "silent"}
    return [
        f"log-mel pictures of the first second: {BANDS} bands (HTK mel scale, {LOWEST} to {rate // 2:,} Hz) "
        f"x {FRAMES} frames, not standardised; after the end of a recording they hold log({FLOOR})",
        *(f"{counts[k]:,} of {n:,} recordings are {text}" for k, text in what.items() if counts[k]),
    ]


def _built(
    parts: Mapping[str, Pictures], small: Mapping[str, NDArray[Any]], rate: int, facts: Mapping[str, Any]
) -> Built:
    """small: the arrays other than the pictures."""
    recipe = np.array([FEATURES, rate, WINDOW, HOP, BANDS, FRAMES, LOWEST, FLOOR])
    content = {**small, "recipe": recipe, **{f"samples_{part}": p.digests for part, p in parts.items()}}
    arrays = {**{f"x_{part}": p.x for part, p in parts.items()}, **small}
    return arrays, {**facts, "notes": [*_notes(parts, rate), *facts["notes"]], "content": content}


class Spoken(NamedTuple):
    """A recording of fsdd."""

    digit: int
    speaker: str
    take: int
    samples: Samples

    @property
    def part(self) -> str:
        """Of the official split."""
        return "test" if self.take < FSDD_TEST_TAKES else "train"


def find_fsdd(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The recordings of the official repository, or the two npz files."""
    check_choice(options["split"], FSDD_SPLITS, "fsdd: split")
    for name in FSDD_FOLDERS:
        wavs = _by_name((root / name / "recordings").glob("*.wav"))
        if wavs:
            return "fsdd", wavs
    npz = [root / name for name in FSDD_NPZ]
    return ("fsdd", npz) if all(f.is_file() for f in npz) else None


def build_fsdd(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    """split=takes, the official one: takes 0 to 4 are the test part, and every speaker is in all parts.
    split=speakers: who is tested is not heard before. By name, the last third of the speakers is the test
    part (theo and yweweler of the official six), the last of the others the validation part (nicolas).

    Strata are the pairs of digit and speaker: the parts and their prefixes are balanced in both.
    """
    if files[0].suffix == ".npz":
        spoken = [r for f, part in zip(files, ("train", "test"), strict=True) for r in _fsdd_npz(f, part)]
    else:
        spoken = [_fsdd_wav(f) for f in files]
    spoken.sort(key=lambda r: r[:3])  # the same order for every layout
    for a, b in pairwise(spoken):
        if a[:3] == b[:3]:
            raise ValueError(
                f"{files[0].parent}: take {a.take} of the digit {a.digit} of {a.speaker} is there twice; "
                "get the set again"
            )
    speakers = sorted({r.speaker for r in spoken})
    if options["split"] == "takes":
        by_part = {part: [r for r in spoken if r.part == part] for part in ("train", "test")}
        for part, mine in by_part.items():
            _all_there("speaker", speakers, {r.speaker for r in mine}, part, files[0].parent)
        who = f"{len(speakers)} speakers, all of them in both the training and the test part"
    else:
        heard = _by_speaker(speakers, files[0].parent)
        by_part = {part: [r for r in spoken if r.speaker in some] for part, some in heard.items()}
        who = "no speaker is in two parts: " + ", ".join(
            f"{' and '.join(some)} in the {PART_NAMES[part]} part" for part, some in heard.items()
        )
    for part, mine in by_part.items():
        _all_there("digit", DIGITS, {DIGITS[r.digit] for r in mine}, part, files[0].parent)
        for name in sorted({r.speaker for r in mine}):
            digits = {f"{r.digit} of {name}" for r in mine if r.speaker == name}
            _all_there("digit", [f"{d} of {name}" for d in DIGITS], digits, part, files[0].parent)
    small: dict[str, NDArray[Any]] = {}
    for part, mine in by_part.items():
        y = np.array([r.digit for r in mine], np.int64)
        speaker = np.array([speakers.index(r.speaker) for r in mine], np.int64)
        small |= {f"y_{part}": y, f"speaker_{part}": speaker, f"strata_{part}": y * len(speakers) + speaker}
    made = {p: pictures((r.samples for r in mine), len(mine), FSDD_RATE) for p, mine in by_part.items()}
    facts: dict[str, Any] = {
        "classes": DIGITS,
        "speakers": speakers,
        "source": "Free Spoken Digit Dataset, Jakobovski and contributors",
        "licence": "CC BY-SA 4.0 (Jakobovski and contributors)",
        "notes": [f"{who}; parts and their prefixes are balanced by digit and speaker"],
    }
    if options["split"] == "speakers":
        facts["rows"] = (1_500, 1_000)
    return _built(made, small, FSDD_RATE, facts)


def _by_speaker(speakers: Sequence[str], where: Path) -> dict[str, Sequence[str]]:
    """Part -> its speakers."""
    tested = len(speakers) // 3
    if not tested:
        raise ValueError(
            f"{where} has {len(speakers)} speakers; split=speakers needs 3, one to learn from, one to "
            "validate and one to test: complete the set"
        )
    first = len(speakers) - tested - 1
    return {"train": speakers[:first], "val": speakers[first : first + 1], "test": speakers[first + 1 :]}


def need_every_speaker(
    speaker: NDArray[np.integer], names: Sequence[str], kept: int, part: str, limits: str
) -> None:
    """Raises ValueError if the first `kept` rows leave a speaker out. speaker [N]: of the part, in its order;
    limits: what keeps the other rows from being used.
    """
    numbers, first = np.unique(speaker, return_index=True)
    lost = [names[k] for k, row in zip(numbers, first, strict=True) if row >= kept]
    if lost:
        raise ValueError(
            f"{kept} {PART_NAMES[part]} recordings ({limits}) leave none of {', '.join(lost)}; "
            f"the smallest number that keeps every speaker is {first.max() + 1}"
        )


def _all_there(what: str, names: Sequence[str], found: set[str], part: str, where: Path) -> None:
    for name in names:
        if name not in found:
            raise ValueError(
                f"{where}: the {what} {name} has no recordings in the {PART_NAMES[part]} part; every {what} "
                "must have some in every part: complete the set"
            )


def _by_name(files: Iterable[Path]) -> list[Path]:
    return sorted(
        (f for f in files if not f.name.startswith(".")),  # macOS leaves ._NAME.wav beside NAME.wav
        key=lambda f: (f.parent.name, f.name),
    )


def _fsdd_wav(path: Path) -> Spoken:
    match = FSDD_NAME.fullmatch(path.name)
    if not match:
        raise ValueError(f"{path} is not named DIGIT_SPEAKER_TAKE.wav; rename or remove it")
    digit, speaker, take = match.groups()
    return Spoken(int(digit), speaker, int(take), _not_silent(read_wav(path, FSDD_RATE), str(path)))


def _fsdd_npz(path: Path, part: str) -> list[Spoken]:
    """The npz holds audio int16 [all samples], offsets [N+1]; y, speaker, take [N]; speakers, rate."""
    audio, offsets, y, speaker, take, speakers, rate = store.pick(
        path, "audio", "offsets", "y", "speaker", "take", "speakers", "rate"
    )
    if audio.dtype != np.int16 or audio.ndim != 1:
        raise ValueError(f"{path}: audio must be int16 [samples], not {audio.dtype} {audio.shape}")
    if rate.tolist() not in (FSDD_RATE, [FSDD_RATE]):
        raise ValueError(
            f"{path} has {rate.tolist()} samples a second, not {FSDD_RATE:,}; get the file again"
        )
    digit = check_labels(y, 10, f"{path}, y")
    who = check_labels(speaker, len(speakers), f"{path}, speaker")
    takes = check_labels(take, 2**31, f"{path}, take")
    n = len(digit)
    if not len(who) == len(takes) == n:
        raise ValueError(f"{path}: {n} labels, {len(who)} speakers, {len(takes)} takes; get the file again")
    fits = offsets.dtype.kind in "iu" and offsets.shape == (n + 1,)
    if not fits or offsets[0] != 0 or offsets[-1] != len(audio) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(
            f"{path}: offsets do not fit: {n} recordings need {n + 1} of them, ascending from 0 to "
            f"{len(audio):,}; get the file again"
        )
    found = []
    for i in range(n):
        where = f"{path}: recording {i}"
        samples = _not_silent(audio[offsets[i] : offsets[i + 1]], where)
        found.append(Spoken(int(digit[i]), str(speakers[who[i]]), int(takes[i]), samples))
        if found[-1].part != part:
            raise ValueError(
                f"{where} is take {takes[i]}, which is not of the {PART_NAMES[part]} part: takes 0 to "
                f"{FSDD_TEST_TAKES - 1} are the test part; get the file again"
            )
    return found


def find_speech_commands(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """The lists of validation and test recordings, then all recordings, of the unpacked archive."""
    for base in (root / COMMANDS, root / "SpeechCommands" / COMMANDS):
        lists = [base / "validation_list.txt", base / "testing_list.txt"]
        wavs = [
            f for f in _by_name(base.glob("*/*.wav")) if f.parent.name[0] not in "._"
        ]  # _background_noise_
        if wavs and all(f.is_file() for f in lists):
            return "speech_commands", [*lists, *wavs]
    return None


def build_speech_commands(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    """Parts and their prefixes are balanced by word, not by speaker: some 2,600 speak a few words each.

    Recordings are read one after the other; memory is that of the pictures, 1.7 GB for the whole set (twice
    that when they are loaded). A silent one is kept and counted: an official recording must not be left out.
    """
    validation, testing, *wavs = files
    names = {f"{f.parent.name}/{f.name}": f for f in wavs}
    part_of: dict[str, str] = {}
    for path, part in ((validation, "val"), (testing, "test")):
        for name in _listed(path):
            if name not in names:
                raise ValueError(f"{path} lists {name}, which is not there; unpack the archive again")
            if part_of.setdefault(name, part) != part:
                raise ValueError(
                    f"{name} is in both {validation} and {testing.name}; unpack the archive again"
                )
    words = sorted({f.parent.name for f in wavs})
    speakers = set()
    by_part: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for name, f in names.items():
        match = COMMANDS_NAME.fullmatch(f.name)
        if not match:
            raise ValueError(f"{f} is not named SPEAKER_nohash_NUMBER.wav; rename or remove it")
        speakers.add(match[1])
        by_part[part_of.get(name, "train")].append(f)
    for part, mine in by_part.items():
        _all_there("word", words, {f.parent.name for f in mine}, part, validation.parent)
    number = {word: i for i, word in enumerate(words)}
    small = {f"y_{p}": np.array([number[f.parent.name] for f in mine]) for p, mine in by_part.items()}
    made = {
        part: pictures(
            (_not_empty(read_wav(f, COMMANDS_RATE), str(f)) for f in mine), len(mine), COMMANDS_RATE
        )
        for part, mine in by_part.items()
    }
    notes = [
        "validation recordings are those of validation_list.txt; val_fraction is not used",
        f"{len(speakers):,} speakers; prefixes of a part are balanced by word, not by speaker",
    ]
    if len(words) != COMMANDS_WORDS:
        notes.append(f"{len(words)} words; the official set has {COMMANDS_WORDS}")
    if len(by_part["val"]) != COMMANDS_VAL:
        notes.append(f"{len(by_part['val']):,} validation recordings; the official set has {COMMANDS_VAL:,}")
    facts = {
        "classes": words,
        "source": "Speech Commands v2, Warden 2018",
        "licence": "CC BY 4.0 (Google)",
        "notes": notes,
    }
    return _built(made, small, COMMANDS_RATE, facts)


def _listed(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read ({e}); unpack the archive again") from e
