"""fsdd and speech_commands: features against torch and librosa, layouts, balanced parts, bad recordings."""

import struct
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Callable
from functools import cache as cache_of_calls
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data
from data import speech
from data.sets import SETS

SPEAKERS = ("anna", "ben", "cleo_b")
Key = tuple[int, str, int]  # digit, speaker, take
Recordings = dict[Key, np.ndarray]


def sound(seed: int, n: int, peak: int = 8000) -> np.ndarray:
    """n samples of a tone in noise."""
    r = np.random.default_rng(seed)
    x = np.sin(np.arange(n) * r.uniform(0.2, 2)) + 0.1 * r.standard_normal(n)
    return (x / np.abs(x).max() * peak).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(channels)
        f.setsampwidth(width)
        f.setframerate(rate)
        f.writeframes(samples.tobytes())


@cache_of_calls
def spoken() -> Recordings:
    """Takes 0 to 4 are for the test; one recording is longer than a second, one is clipped."""
    keys = [(d, s, t) for d in range(10) for s in SPEAKERS for t in range(9)]
    found = {key: sound(i, 240 + 16 * (i % 50)) for i, key in enumerate(keys)}
    found[3, "ben", 6] = sound(999, 9000)
    found[4, "anna", 1][100:103] = (32767, -32768, -32767)
    found[5, "anna", 1][100:104] = (32767, -32768, 0, 32767)  # two are none
    return found


def write_folder(root: Path, recordings: Recordings, folder: str = "free-spoken-digit-dataset") -> Path:
    for (digit, speaker, take), samples in recordings.items():
        write_wav(root / folder / "recordings" / f"{digit}_{speaker}_{take}.wav", samples)
    return root / folder / "recordings"


def write_npz(root: Path, recordings: Recordings) -> tuple[Path, Path]:
    """The two npz files, recordings and speakers in another order than that of the names."""
    (root / "fsdd").mkdir(parents=True, exist_ok=True)
    names = SPEAKERS[::-1]
    keys = list(recordings)
    np.random.default_rng(5).shuffle(keys)
    paths = []
    for part in ("train", "test"):
        mine = [k for k in keys if (k[2] < 5) == (part == "test")]
        mine = [(int(d), str(s), int(t)) for d, s, t in mine]
        audio = [recordings[k] for k in mine]
        paths.append(root / "fsdd" / f"fsdd_{part}.npz")
        np.savez(
            paths[-1],
            audio=np.concatenate(audio),
            offsets=np.cumsum([0] + [len(a) for a in audio]),
            y=np.array([k[0] for k in mine]),
            speaker=np.array([names.index(k[1]) for k in mine]),
            take=np.array([k[2] for k in mine]),
            speakers=np.array(names),
            rate=np.int64(8000),
        )
    return paths[0], paths[1]


@pytest.fixture
def fsdd(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    write_folder(root, spoken())
    return root


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ValueError) as e:
        call()
    assert "\n" not in str(e.value)
    for part in parts:
        assert part in str(e.value)


# features


def padded(samples: np.ndarray, rate: int) -> np.ndarray:
    """As log_mel describes it: the first second less its mean, zeros behind, 5 ms + half an FFT around."""
    n_fft = {8000: 256, 16_000: 512}[rate]
    second = samples[:rate] / 32768
    x = np.zeros(rate + n_fft - rate // 100)
    begin = (n_fft - rate // 100) // 2
    x[begin : begin + len(second)] = second - second.mean()
    return x


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_features_against_torch(rate: int) -> None:
    """The spectrum of torch.stft, and triangles written out one by one."""
    n_fft, window = {8000: (256, 200), 16_000: (512, 400)}[rate]
    waves = [sound(1, rate), sound(2, rate // 3), sound(3, 2 * rate), sound(4, 1) * 0]
    ours = speech.log_mel(waves, rate)
    assert ours.shape == (4, 1, 40, 100) and ours.dtype == np.float32
    to_mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(to_mel(20), to_mel(rate / 2), 42)]
    bank = torch.zeros(40, n_fft // 2 + 1, dtype=torch.float64)
    for b in range(40):
        for k in range(n_fft // 2 + 1):
            bank[b, k] = np.interp(k * rate / n_fft, edges[b : b + 3], [0, 1, 0], left=0, right=0)
    assert (bank.sum(1) > 0.5).all()  # no band without a frequency
    for x, samples in zip(ours, waves, strict=True):
        spectrum = torch.stft(
            torch.from_numpy(padded(samples, rate)),
            n_fft,
            rate // 100,
            window,
            torch.hann_window(window, dtype=torch.float64),
            center=False,
            return_complex=True,
        )
        theirs = (bank @ spectrum.abs().square()).clamp(min=1e-7).log()
        assert np.allclose(x[0], theirs, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_features_against_librosa(rate: int) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is not installed (it is in the extra dev)")
    for samples in (sound(1, rate), sound(2, rate // 3), sound(3, 2 * rate)):
        mel = librosa.feature.melspectrogram(
            y=padded(samples, rate),
            sr=rate,
            n_fft={8000: 256, 16_000: 512}[rate],
            hop_length=rate // 100,
            win_length=rate // 40,
            center=False,
            power=2,
            n_mels=40,
            fmin=20,
            fmax=rate / 2,
            htk=True,
            norm=None,
        )
        ours = speech.log_mel([samples], rate)[0, 0]
        assert np.allclose(ours, np.log(np.maximum(mel, 1e-7)), atol=1e-4)


def test_chunks_change_nothing() -> None:
    waves = [sound(i, 300 + i) for i in range(2 * speech.CHUNK + 5)]
    alone = np.concatenate([speech.log_mel([w], 8000) for w in waves])
    assert np.allclose(speech.log_mel(waves, 8000), alone, atol=1e-6)
    assert np.allclose(speech.pictures(iter(waves), len(waves), 8000).x, alone, atol=1e-6)


def test_when_and_how_high() -> None:
    click = np.zeros(8000, np.int16)
    click[38 * 80 + 40] = 20_000
    x = speech.log_mel([click], 8000)[0, 0]
    assert x.mean(0).argmax() == 38
    assert np.flatnonzero(x.max(0) > -10).tolist() == [37, 38, 39]
    for hz, band in ((300, 6), (1000, 18), (3000, 35)):  # (mel(hz) - mel(20)) / 51.6 - 1
        tone = (10_000 * np.sin(2 * np.pi * hz * np.arange(4000) / 8000)).astype(np.int16)
        x = speech.log_mel([tone], 8000)[0, 0]
        assert x[:, 10:40].mean(1).argmax() == band
        assert np.allclose(x[:, 52:], np.log(1e-7))  # after the end
        assert x[band, :49].min() > x[band, 52] + 5


def test_an_offset_of_the_microphone_changes_nothing() -> None:
    x = sound(1, 3000)
    assert np.allclose(speech.log_mel([x], 8000), speech.log_mel([x + np.int16(500)], 8000), atol=1e-5)


# fsdd


def test_both_layouts_are_one_set(fsdd: Path, cache: Path, tmp_path: Path) -> None:
    write_npz(tmp_path / "npz", spoken())
    write_folder(tmp_path / "short", spoken(), "fsdd")
    a = data.load("fsdd", root=fsdd, cache=cache)
    for other in ("npz", "short"):
        b = data.load("fsdd", root=tmp_path / other, cache=tmp_path / f"cache {other}")
        assert (a.name, a.fingerprint, a.notes) == (b.name, b.fingerprint, b.notes)
        for part in ("train", "val", "test"):
            assert torch.equal(getattr(a, f"x_{part}"), getattr(b, f"x_{part}"))
            assert torch.equal(getattr(a, f"y_{part}"), getattr(b, f"y_{part}"))


def keys_of(x: torch.Tensor, recordings: Recordings) -> list[Key]:
    """Which recording each picture is of."""
    known = speech.log_mel(list(recordings.values()), 8000).reshape(len(recordings), -1)
    # in chunks of another size, the last digit may differ
    found = torch.cdist(x.flatten(1), torch.from_numpy(known)).argmin(1)
    keys = list(recordings)
    return [keys[i] for i in found]


def test_the_official_split(fsdd: Path, cache: Path) -> None:
    d = data.load("fsdd", root=fsdd, cache=cache, val_fraction=0.25)
    assert d.x_train.dtype == torch.float32 and d.x_train.shape == (90, 1, 40, 100)
    assert d.classes == tuple("0123456789") and d.error == "error"
    recordings = spoken()
    seen: list[Key] = []
    for part, takes in (("train", range(5, 9)), ("val", range(5, 9)), ("test", range(5))):
        keys = keys_of(getattr(d, f"x_{part}"), recordings)
        assert [k[0] for k in keys] == getattr(d, f"y_{part}").tolist()
        assert {k[2] for k in keys} <= set(takes)
        assert len(set(Counter(k[:2] for k in keys).values())) == 1  # every digit of every speaker
        seen += keys
    assert sorted(seen) == sorted(recordings)
    notes = " | ".join(d.notes)
    for text in (
        "40 bands (HTK mel scale, 20 to 4,000 Hz)",
        "not standardised",
        "log(1e-07)",
        "1 of 270 recordings are longer than a second and cut",
        "1 of 270 recordings are clipped",
        "3 speakers, all of them in both",
        "120 + 150 examples; the official set has 2,700 + 300",
    ):
        assert text in notes


def test_a_split_by_speakers(fsdd: Path, cache: Path, tmp_path: Path) -> None:
    """Who is tested is not heard before, and the two splits are kept under two names."""
    d = data.load("fsdd", root=fsdd, cache=cache, split="speakers", val_fraction=0.25)
    official = data.load("fsdd", root=fsdd, cache=cache)
    assert d.fingerprint != official.fingerprint
    recordings, seen = spoken(), []
    for part, speaker in zip(("train", "val", "test"), sorted(SPEAKERS), strict=True):
        keys = keys_of(getattr(d, f"x_{part}"), recordings)
        assert [k[0] for k in keys] == getattr(d, f"y_{part}").tolist()
        assert {k[1] for k in keys} == {speaker}
        assert set(Counter(k[0] for k in keys).values()) == {9}
        seen += keys
    assert sorted(seen) == sorted(recordings)
    half = data.load("fsdd", root=fsdd, cache=cache, split="speakers", share=0.5)
    assert torch.equal(half.x_train, d.x_train[:45]) and torch.equal(half.x_val, d.x_val)
    assert half.fingerprint == d.fingerprint
    assert set(Counter(half.y_train.tolist()).values()) <= {4, 5}
    text = " | ".join(d.notes)
    assert "no speaker is in two parts: anna in the training part, ben in the validation part" in text
    assert "90 + 90 examples; the official set has 1,500 + 1,000" in text
    write_npz(tmp_path / "npz", spoken())
    other = data.load("fsdd", root=tmp_path / "npz", cache=tmp_path / "other", split="speakers")
    assert other.fingerprint == d.fingerprint and torch.equal(other.x_test, d.x_test)


def test_bad_splits(fsdd: Path, cache: Path, tmp_path: Path) -> None:
    refused(
        partial(data.load, "fsdd", root=fsdd, cache=cache, split="speaker"),
        "fsdd: split must be takes or speakers, not 'speaker'",
    )
    two = {k: v for k, v in spoken().items() if k[1] != "anna"}
    write_folder(tmp_path / "two", two)
    refused(
        partial(data.load, "fsdd", root=tmp_path / "two", cache=cache, split="speakers"),
        str(tmp_path / "two"),
        "has 2 speakers; split=speakers needs 3",
    )
    refused(
        partial(data.load, "fsdd", root=fsdd, cache=cache, limit_eval=1),
        "1 validation recordings (limit_eval) leave none of",
    )
    silent_digit = {k: v for k, v in spoken().items() if k[:2] != (4, "ben")}
    write_folder(tmp_path / "gap", silent_digit)
    refused(
        partial(data.load, "fsdd", root=tmp_path / "gap", cache=cache, split="speakers"),
        "the digit 4 has no recordings in the validation part",
    )


@pytest.mark.parametrize("how", [{"limit_train": 45}, {"share": 0.5}, {"share": 0.25}, {"limit_train": 80}])
def test_prefixes_are_nested_and_balanced(how: dict, fsdd: Path, cache: Path) -> None:
    whole = data.load("fsdd", root=fsdd, cache=cache, val_fraction=0.25)
    part = data.load("fsdd", root=fsdd, cache=cache, val_fraction=0.25, **how)
    n = how.get("limit_train", round(90 * how.get("share", 1)))
    assert len(part.y_train) == n
    assert torch.equal(part.x_train, whole.x_train[:n]) and torch.equal(part.y_train, whole.y_train[:n])
    count = Counter(k[:2] for k in keys_of(part.x_train, spoken()))
    pairs = [count[digit, speaker] for digit in range(10) for speaker in SPEAKERS]
    assert all(abs(c - n / 30) <= 1 for c in pairs)
    for same in ("x_val", "y_val", "x_test", "y_test"):
        assert torch.equal(getattr(part, same), getattr(whole, same))
    assert part.fingerprint == whole.fingerprint


def test_limit_eval_is_balanced_by_speaker(fsdd: Path, cache: Path) -> None:
    d = data.load("fsdd", root=fsdd, cache=cache, limit_eval=60)
    count = Counter(k[:2] for k in keys_of(d.x_test, spoken()))
    assert all(1 <= count[digit, speaker] <= 3 for digit in range(10) for speaker in SPEAKERS)


def test_every_speaker_is_needed(fsdd: Path, cache: Path) -> None:
    whole = data.load("fsdd", root=fsdd, cache=cache)
    order = [k[1] for k in keys_of(whole.x_train, spoken())]
    smallest = max(order.index(s) for s in SPEAKERS) + 1
    assert smallest > 2
    assert len(data.load("fsdd", root=fsdd, cache=cache, limit_train=smallest).y_train) == smallest
    lost = ", ".join(s for s in SPEAKERS if s not in order[: smallest - 1])
    hows: list[dict] = [{"limit_train": smallest - 1}, {"limit_train": 10 * (smallest - 1), "share": 0.1}]
    for how in hows:
        refused(
            partial(data.load, "fsdd", root=fsdd, cache=cache, **how),
            f"{smallest - 1} training recordings (limit_train, share) leave none of {lost};",
            f"the smallest number that keeps every speaker is {smallest}",
        )


def test_the_fingerprint_is_of_the_samples(
    fsdd: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the last digits of the pictures, which may differ between machines."""
    first = data.fingerprint("fsdd", root=fsdd, cache=cache)
    path = fsdd / "free-spoken-digit-dataset" / "recordings" / "0_anna_0.wav"
    raw = path.read_bytes()
    path.write_bytes(raw[:-2] + b"\1\0")
    assert data.fingerprint("fsdd", root=fsdd, cache=tmp_path / "b") != first
    path.write_bytes(raw)
    plain = speech.log_mel
    monkeypatch.setattr(speech, "log_mel", lambda *a: plain(*a) + np.float32(1e-5))
    assert data.fingerprint("fsdd", root=fsdd, cache=tmp_path / "c") == first
    monkeypatch.setattr(speech, "FLOOR", 1e-6)
    assert data.fingerprint("fsdd", root=fsdd, cache=tmp_path / "d") != first


def test_building_needs_no_torch(fsdd: Path, cache: Path) -> None:
    code = "import sys, data; data.fingerprint('fsdd', root=sys.argv[1], cache=sys.argv[2])\n"
    code += "assert 'torch' not in sys.modules"
    p = subprocess.run([sys.executable, "-c", code, str(fsdd), str(cache)], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr


def test_a_prepared_set_needs_no_source(fsdd: Path, cache: Path, tmp_path: Path) -> None:
    first = data.fingerprint("fsdd", root=fsdd, cache=cache)
    assert data.load("fsdd", root=tmp_path / "nothing", cache=cache).fingerprint == first


# bad recordings


def spoil_wav(harm: str, path: Path) -> None:
    raw = path.read_bytes()
    samples = np.frombuffer(raw[44:], np.int16)
    if harm == "empty":
        write_wav(path, samples[:0])
    elif harm in ("zeros", "constant"):
        write_wav(path, np.full(200, 0 if harm == "zeros" else 7, np.int16))
    elif harm == "rate":
        write_wav(path, samples, 16_000)
    elif harm == "stereo":
        write_wav(path, np.repeat(samples, 2), channels=2)
    elif harm == "8 bit":
        write_wav(path, samples.astype(np.uint8), width=1)
    elif harm == "24 bit":
        write_wav(path, np.repeat(samples, 3), width=3)
    elif harm == "float":
        path.write_bytes(raw[:20] + struct.pack("<h", 3) + raw[22:])
    elif harm == "cut":
        path.write_bytes(raw[:-7])
    elif harm == "header only":
        path.write_bytes(raw[:40])
    elif harm == "no bytes":
        path.write_bytes(b"")
    elif harm == "no wav":
        path.write_bytes(b"<html>not found</html>" * 9)
    elif harm == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("empty", "is empty: it has no samples"),
        ("zeros", "is silent: all its samples are equal"),
        ("constant", "is silent: all its samples are equal"),
        ("rate", "has 16,000 samples a second, not 8,000"),
        ("stereo", "has 2 channels, not 1"),
        ("8 bit", "has 8 bits a sample, not 16"),
        ("24 bit", "has 24 bits a sample, not 16"),
        ("float", "cannot be read as a wav file of 16-bit PCM (unknown format: 3)"),
        ("cut", "samples its header promises"),
        ("header only", "cannot be read as a wav file of 16-bit PCM"),
        ("no bytes", "cannot be read as a wav file of 16-bit PCM (it ends too early)"),
        ("no wav", "cannot be read as a wav file of 16-bit PCM"),
        ("folder", "cannot be read as a wav file of 16-bit PCM"),
    ],
)
def test_bad_recordings_are_named(harm: str, message: str, fsdd: Path, cache: Path) -> None:
    path = fsdd / "free-spoken-digit-dataset" / "recordings" / "7_ben_3.wav"
    spoil_wav(harm, path)
    refused(lambda: data.load("fsdd", root=fsdd, cache=cache), str(path), message)


def test_no_part_of_a_wav_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, sound(1, 20))
    raw = path.read_bytes()
    assert len(speech.read_wav(path, 8000)) == 20
    for n in range(len(raw)):
        path.write_bytes(raw[:n])
        refused(lambda: speech.read_wav(path, 8000), str(path), "get the file again")


@pytest.mark.parametrize("name", ["7_ben.wav", "x_ben_3.wav", "12_ben_3.wav", "7_ben_three.wav", "7__3.wav"])
def test_a_name_that_says_nothing_is_named(name: str, fsdd: Path, cache: Path) -> None:
    path = fsdd / "free-spoken-digit-dataset" / "recordings" / name
    write_wav(path, sound(1, 200))
    refused(lambda: data.load("fsdd", root=fsdd, cache=cache), str(path), "not named DIGIT_SPEAKER_TAKE.wav")


def test_other_files_are_passed_over(fsdd: Path, cache: Path) -> None:
    folder = fsdd / "free-spoken-digit-dataset" / "recordings"
    (folder / "._7_ben_3.wav").write_bytes(b"from macOS")
    (folder / "README.md").write_text("more words")
    assert len(data.load("fsdd", root=fsdd, cache=cache).y_test) == 150


def without(**gone: object) -> Recordings:
    """What the fixture has, less the recordings of this speaker, digit and part."""

    def keep(key: Key) -> bool:
        facts = {"digit": key[0], "speaker": key[1], "part": "test" if key[2] < 5 else "train"}
        return any(facts[k] != v for k, v in gone.items())

    return {k: v for k, v in spoken().items() if keep(k)}


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ({"speaker": "ben", "part": "test"}, "the speaker ben has no recordings in the test part"),
        ({"speaker": "ben", "part": "train"}, "the speaker ben has no recordings in the training part"),
        ({"digit": 4, "part": "test"}, "the digit 4 has no recordings in the test part"),
        ({"digit": 4, "part": "train"}, "the digit 4 has no recordings in the training part"),
        ({"digit": 4}, "the digit 4 has no recordings in the training part"),
        (
            {"digit": 4, "speaker": "ben", "part": "test"},
            "the digit 4 of ben has no recordings in the test part",
        ),
    ],
)
@pytest.mark.parametrize("write", [write_folder, write_npz])
def test_whoever_is_in_one_part_is_in_the_other(
    gone: dict, message: str, write: Callable, tmp_path: Path, cache: Path
) -> None:
    write(tmp_path, without(**gone))
    refused(lambda: data.load("fsdd", root=tmp_path, cache=cache), str(tmp_path), message)


def test_a_recording_twice(fsdd: Path, cache: Path) -> None:
    folder = fsdd / "free-spoken-digit-dataset" / "recordings"
    write_wav(folder / "7_ben_03.wav", sound(1, 200))
    refused(
        lambda: data.load("fsdd", root=fsdd, cache=cache),
        str(folder),
        "take 3 of the digit 7 of ben is there twice",
    )


def bad_npz(harm: str, path: Path) -> None:
    with np.load(path) as z:
        a = dict(z)
    off = a["offsets"]
    if harm == "one offset less":
        a["offsets"] = off[:-1]
    elif harm == "offsets begin late":
        a["offsets"] = off + 1
    elif harm == "audio is cut":
        a["audio"] = a["audio"][:-10]
    elif harm == "offsets fall":
        off[3], off[4] = off[4], off[3]
    elif harm == "float offsets":
        a["offsets"] = off.astype(float)
    elif harm == "an empty one":
        off[3] = off[4]
    elif harm == "a silent one":
        a["audio"][off[3] : off[4]] = 5
    elif harm == "float audio":
        a["audio"] = a["audio"].astype(np.float32)
    elif harm == "rate":
        a["rate"] = np.int64(16_000)
    elif harm == "rates":
        a["rate"] = np.array([8000, 8000])
    elif harm == "label":
        a["y"][2] = 10
    elif harm == "speaker":
        a["speaker"][2] = 3
    elif harm == "negative take":
        a["take"][2] = -1
    elif harm == "takes of the test":
        a["take"][2] = 4
    elif harm == "fewer speakers":
        a["speaker"] = a["speaker"][:-1]
    elif harm == "no takes":
        del a["take"]
    np.savez(path, **a)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("one offset less", "offsets do not fit: 120 recordings need 121 of them, ascending from 0 to"),
        ("offsets begin late", "offsets do not fit"),
        ("audio is cut", "offsets do not fit"),
        ("offsets fall", "offsets do not fit"),
        ("float offsets", "offsets do not fit"),
        ("an empty one", "recording 3 is empty"),
        ("a silent one", "recording 3 is silent"),
        ("float audio", "audio must be int16 [samples], not float32"),
        ("rate", "has 16000 samples a second, not 8,000"),
        ("rates", "has [8000, 8000] samples a second"),
        ("label", "y: the label 10 is not one of 0 to 9"),
        ("speaker", "speaker: the label 3 is not one of 0 to 2"),
        ("negative take", "take: the label -1 is not one of"),
        ("takes of the test", "recording 2 is take 4, which is not of the training part"),
        ("fewer speakers", "120 labels, 119 speakers, 120 takes"),
        ("no takes", "is damaged or no npz file"),
        ("cut", "is damaged or no npz file"),
    ],
)
def test_bad_npz_files_are_named(harm: str, message: str, tmp_path: Path, cache: Path) -> None:
    train, _ = write_npz(tmp_path, spoken())
    bad_npz(harm, train)
    refused(lambda: data.load("fsdd", root=tmp_path, cache=cache), str(train), message)


# speech_commands

WORDS = ("cat", "no", "yes")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Three words of six training speakers, one for validation, two for the test; one recording is short."""
    base = tmp_path / "root" / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for w, word in enumerate(WORDS):
        for k in range(9):
            name = f"{k:02d}ab34{k}f_nohash_{w}.wav"
            n = 7000 if (w, k) == (0, 0) else 16_000
            write_wav(base / word / name, sound(100 * w + k, n), 16_000)
            if k >= 6:
                lists["validation" if k == 6 else "testing"].append(f"{word}/{name}")
    for part, names in lists.items():
        (base / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    write_wav(base / "_background_noise_" / "pink_noise.wav", sound(1, 50_000), 16_000)
    (base / "LICENSE").write_text("CC BY 4.0")
    return tmp_path / "root"


def test_speech_commands(commands: Path, cache: Path, tmp_path: Path) -> None:
    d = data.load("speech_commands", root=commands, cache=cache)
    assert d.classes == WORDS and d.name == "speech_commands" and d.error == "error"
    assert d.x_train.shape == (18, 1, 40, 100) and d.x_train.dtype == torch.float32
    for part, n in (("train", 6), ("val", 1), ("test", 2)):
        x, y = getattr(d, f"x_{part}"), getattr(d, f"y_{part}")
        assert np.bincount(y).tolist() == [n] * 3
        numbers = {"train": range(6), "val": [6], "test": [7, 8]}[part]
        for c in range(3):
            waves = [sound(100 * c + k, 7000 if (c, k) == (0, 0) else 16_000) for k in numbers]
            known = torch.from_numpy(speech.log_mel(waves, 16_000))
            found = torch.cdist(x[y == c].flatten(1), known.flatten(1))
            assert sorted(found.argmin(1).tolist()) == list(range(n)) and found.min(1)[0].max() < 1e-2
    for prefix in (3, 6, 9):
        assert np.bincount(d.y_train[:prefix]).max() <= prefix // 3 + 1
    notes = " | ".join(d.notes)
    for text in (
        "20 to 8,000 Hz",
        "validation_list.txt; val_fraction is not used",
        "9 speakers; prefixes of a part are balanced by word, not by speaker",
        "3 words; the official set has 35",
        "3 validation recordings; the official set has 9,981",
        "18 + 6 examples; the official set has 84,843 + 11,005",
    ):
        assert text in notes
    assert "clipped" not in notes and "silent" not in notes
    again = data.load("speech_commands", root=commands, cache=cache, val_fraction=0.5, limit_train=7)
    assert torch.equal(again.x_val, d.x_val) and torch.equal(again.x_train, d.x_train[:7])
    # the layout of torchaudio
    (tmp_path / "audio" / "SpeechCommands").mkdir(parents=True)
    base = commands / "speech_commands_v0.02"
    base.rename(tmp_path / "audio" / "SpeechCommands" / base.name)
    other = data.load("speech_commands", root=tmp_path / "audio", cache=tmp_path / "b")
    assert other.fingerprint == d.fingerprint and torch.equal(other.x_test, d.x_test)


def test_a_silent_command_is_kept_and_counted(commands: Path, cache: Path) -> None:
    path = commands / "speech_commands_v0.02" / "no" / "02ab342f_nohash_1.wav"
    write_wav(path, np.zeros(16_000, np.int16), 16_000)
    d = data.load("speech_commands", root=commands, cache=cache)
    assert "1 of 27 recordings are silent" in d.notes
    assert len(d.y_train) == 18
    silence = d.x_train[d.y_train == 1].flatten(1).eq(float(np.float32(np.log(1e-7))))
    assert silence.all(1).sum() == 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("rate", "has 8,000 samples a second, not 16,000"),
        ("empty", "is empty"),
        ("cut", "is cut short"),
        ("name", "is not named SPEAKER_nohash_NUMBER.wav"),
        ("gone", "testing_list.txt lists no/07ab347f_nohash_1.wav, which is not there"),
        ("in both lists", "no/07ab347f_nohash_1.wav is in both"),
        ("a word without test", "the word yes has no recordings in the test part"),
        ("a word without training", "the word dog has no recordings in the training part"),
        ("list is no text", "testing_list.txt cannot be read"),
    ],
)
def test_bad_commands_are_named(harm: str, message: str, commands: Path, cache: Path) -> None:
    base = commands / "speech_commands_v0.02"
    path, testing = base / "no" / "07ab347f_nohash_1.wav", base / "testing_list.txt"
    if harm == "rate":
        write_wav(path, sound(1, 8000), 8000)
    elif harm == "empty":
        write_wav(path, sound(1, 8000)[:0], 16_000)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif harm == "name":
        path.rename(path.with_name("me.wav"))
        testing.write_text(testing.read_text().replace("no/07ab347f_nohash_1.wav", "no/me.wav"))
    elif harm == "gone":
        path.unlink()
    elif harm == "in both lists":
        with (base / "validation_list.txt").open("a") as f:
            f.write("no/07ab347f_nohash_1.wav\n")
    elif harm == "a word without test":
        testing.write_text("".join(n for n in testing.read_text().splitlines(True) if "yes/" not in n))
    elif harm == "a word without training":
        write_wav(base / "dog" / "07ab347f_nohash_0.wav", sound(1, 9000), 16_000)
        with testing.open("a") as f:
            f.write("dog/07ab347f_nohash_0.wav\n")
    elif harm == "list is no text":
        testing.write_bytes(b"\xff\xfe\x80")
    refused(lambda: data.load("speech_commands", root=commands, cache=cache), str(base), message)


@pytest.mark.parametrize("harm", ["no list", "no recordings", "nothing"])
def test_half_an_archive_is_missing(harm: str, commands: Path, cache: Path) -> None:
    base = commands / "speech_commands_v0.02"
    if harm == "no list":
        (base / "testing_list.txt").unlink()
    for word in WORDS if harm != "no list" else ():
        (base / word).rename(commands / word)
    with pytest.raises(data.DataSetMissing, match="unpack speech_commands_v0"):
        data.load("speech_commands", root=commands, cache=cache)


# both


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("fsdd", ["github.com/Jakobovski", "/free-spoken-digit-dataset", "fsdd_train.npz", "CC BY-SA 4.0"]),
        ("speech_commands", ["download.tensorflow.org", "/speech_commands_v0.02", "CC BY 4.0"]),
    ],
)
def test_a_missing_set_says_what_to_get(name: str, parts: list[str], tmp_path: Path, cache: Path) -> None:
    with pytest.raises(data.DataSetMissing) as e:
        data.load(name, root=tmp_path, cache=cache)
    for part in (*parts, str(tmp_path)):
        assert part in str(e.value)
    assert "\n" not in str(e.value)
    assert SETS[name].rows is not None


def test_share_is_a_prefix_of_any_set(mnist_root: Path, cache: Path) -> None:
    whole = data.load("mnist", root=mnist_root, cache=cache, limit_train=41)
    half = data.load("mnist", root=mnist_root, cache=cache, limit_train=41, share=0.5)
    assert len(half.y_train) == 20 and torch.equal(half.x_train, whole.x_train[:20])
    assert torch.equal(half.x_val, whole.x_val)
    wrong: tuple[Any, ...] = (0, -1, 1.5, float("nan"), True, "half")
    for share in wrong:
        refused(
            partial(data.load, "mnist", root=mnist_root, cache=cache, share=share),
            "share must be a number in (0, 1]",
        )


def test_real_fsdd(real_root: Path) -> None:
    d = data.load("fsdd", root=real_root)
    assert [len(y) for y in (d.y_train, d.y_val, d.y_test)] == [2460, 240, 300]
    assert np.bincount(d.y_test).tolist() == [30] * 10
    assert "20 of 3,000 recordings are longer than a second and cut" in d.notes
    assert not any("clipped" in note or "examples" in note for note in d.notes)
    assert d.fingerprint == "931b6ea21cd467ff"  # golden: run ids hold it
    unheard = data.load("fsdd", root=real_root, split="speakers")
    assert [len(y) for y in (unheard.y_train, unheard.y_val, unheard.y_test)] == [1500, 500, 1000]
    assert np.bincount(unheard.y_test).tolist() == [100] * 10
    assert any("nicolas in the validation part, theo and yweweler in the test" in n for n in unheard.notes)
    assert unheard.fingerprint == "d21526c6f4658194"
