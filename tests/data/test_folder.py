"""The user's own pictures: modes, sizes, splits, and every way in which a folder can be wrong."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import folder, stream


def colour(seed: int, size: tuple[int, int] = (28, 28)) -> Image.Image:
    r = np.random.default_rng(seed)
    return Image.fromarray(r.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two classes, 6 + 4 pictures of 28x28."""
    base = tmp_path / "my pictures"
    for part, n in (("train", 3), ("test", 2)):
        for k, name in enumerate(("cats", "dogs")):
            (base / part / name).mkdir(parents=True)
            for i in range(n):
                colour(100 * k + 10 * i + len(part)).save(base / part / name / f"{i}.png")
    return base


def test_pixels_and_classes(own: Path, cache: Path) -> None:
    d = data.load("folder", path=own, cache=cache, channels=3, val_fraction=0)
    assert d.classes == ("cats", "dogs")
    assert d.name == "folder"
    assert np.bincount(d.y_train).tolist() == [3, 3]
    assert np.bincount(d.y_test).tolist() == [2, 2]
    for part, x, y in (("train", d.x_train, d.y_train), ("test", d.x_test, d.y_test)):
        ours = {(a.numpy().tobytes(), d.classes[b]) for a, b in zip(x, y, strict=True)}
        files = (own / part).glob("*/*.png")
        theirs = {(np.asarray(Image.open(f)).transpose(2, 0, 1).tobytes(), f.parent.name) for f in files}
        assert ours == theirs


def test_grey_is_the_usual_weighted_mean(own: Path, cache: Path) -> None:
    d = data.load("folder", path=own, cache=cache, val_fraction=0)
    assert d.x_train.shape == (6, 1, 28, 28)
    rgb = data.load("folder", path=own, cache=cache, val_fraction=0, channels=3).x_train.double()
    want = (rgb * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(
        1
    )  # ITU-R 601-2, as Pillow says
    assert (d.x_train[:, 0].double() - want).abs().max() <= 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "F", "I"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_a_flat_picture(own: Path, cache: Path, mode: str, channels: int) -> None:
    """A white picture is white in every mode."""
    path = own / "train" / "cats" / f"white.{'tif' if mode in ('CMYK', 'F', 'I', 'I;16') else 'png'}"
    if mode in ("I;16", "I", "F"):
        white = Image.fromarray(
            np.full((40, 30), 65535, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    else:
        white = Image.new("RGB", (30, 40), "white").convert(mode)
    white.save(path)
    d = data.load("folder", path=own, cache=cache, channels=channels, val_fraction=0)
    assert any((x == 255).all() for x in d.x_train)


def test_a_grey_ramp_of_16_bits_keeps_its_shades(own: Path, cache: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 28).astype(np.uint16), (28, 1))
    Image.fromarray(ramp).save(own / "train" / "cats" / "ramp.png")
    d = data.load("folder", path=own, cache=cache, val_fraction=0)
    assert any((x[0].double() - torch.linspace(0, 255, 28)).abs().max() < 2 for x in d.x_train)


def test_transparent_becomes_white(own: Path, cache: Path) -> None:
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(own / "train" / "cats" / "glass.png")
    d = data.load("folder", path=own, cache=cache, val_fraction=0)
    assert any((x == 255).all() for x in d.x_train)


def test_wide_pictures_are_cropped_around_the_middle(own: Path, cache: Path) -> None:
    wide = Image.new("RGB", (90, 30), "black")
    wide.paste("white", (30, 0, 60, 30))
    wide.save(own / "train" / "cats" / "wide.jpg", quality=100, subsampling=0)
    d = data.load("folder", path=own, cache=cache, val_fraction=0, size=16)
    assert d.x_train.shape[2:] == (16, 16)
    assert any((x > 200).all() for x in d.x_train)  # scaling mixes in a little of what is beside


def test_a_turned_photograph_is_turned_back(own: Path, cache: Path) -> None:
    picture = Image.new("L", (28, 28), 0)
    picture.paste(255, (0, 0, 28, 14))  # upper half white
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    picture.save(own / "train" / "cats" / "turned.png", exif=exif)
    d = data.load("folder", path=own, cache=cache, val_fraction=0)
    assert any((x[0, 14:] == 255).all() and (x[0, :14] == 0).all() for x in d.x_train)


def test_own_validation_folder(own: Path, cache: Path) -> None:
    shutil.copytree(own / "test", own / "val")
    colour(999).save(own / "val" / "dogs" / "extra.png")
    d = data.load("folder", path=own, cache=cache, val_fraction=0.5)
    assert np.bincount(d.y_val).tolist() == [2, 3]
    assert len(d.y_train) == 6
    assert any("val_fraction is not used" in note for note in d.notes)
    assert len(data.load("folder", path=own, cache=cache, limit_eval=2).y_val) == 2


def test_fingerprint_is_of_the_content(own: Path, cache: Path, tmp_path: Path) -> None:
    first = data.fingerprint("folder", path=own, cache=cache)
    shutil.copytree(own, tmp_path / "a copy")
    assert data.fingerprint("folder", path=tmp_path / "a copy", cache=cache) == first
    assert data.fingerprint("folder", path=own, cache=cache, size=20) != first
    # a picture that moves to the other class keeps its time and size
    (own / "train" / "cats" / "0.png").rename(own / "train" / "dogs" / "9.png")
    moved = data.fingerprint("folder", path=own, cache=cache)
    assert moved != first
    colour(77).save(own / "train" / "dogs" / "9.png")
    os.utime(own / "train" / "dogs" / "9.png", ns=(0, 7))
    assert data.fingerprint("folder", path=own, cache=cache) not in (first, moved)


def test_other_files_are_left_alone(own: Path, cache: Path) -> None:
    first = data.fingerprint("folder", path=own, cache=cache)
    (own / "train" / "cats" / "notes.txt").write_text("hello")
    (own / "train" / "cats" / ".hidden.png").write_bytes(b"x")
    (own / "train" / ".cache").mkdir()
    assert data.fingerprint("folder", path=own, cache=cache) == first


def harm_missing(base: Path) -> None:
    shutil.rmtree(base)


def harm_no_test(base: Path) -> None:
    shutil.rmtree(base / "test")


def harm_empty_class(base: Path) -> None:
    (base / "train" / "birds").mkdir()


def harm_one_class(base: Path) -> None:
    shutil.rmtree(base / "train" / "dogs")
    shutil.rmtree(base / "test" / "dogs")


def harm_unknown_class(base: Path) -> None:
    shutil.copytree(base / "test" / "dogs", base / "test" / "birds")


def harm_no_test_pictures(base: Path) -> None:
    shutil.rmtree(base / "test" / "dogs")


def harm_text(base: Path) -> None:
    (base / "train" / "dogs" / "x.png").write_text("not a picture")


def harm_cut_png(base: Path) -> None:
    path = base / "train" / "dogs" / "0.png"
    path.write_bytes(path.read_bytes()[:300])


def harm_cut_jpeg(base: Path) -> None:
    path = base / "train" / "dogs" / "x.jpg"
    colour(1, (200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def harm_empty_file(base: Path) -> None:
    (base / "train" / "dogs" / "x.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "kind", "says"),
    [
        (harm_missing, data.DataSetMissing, "does not exist"),
        (harm_no_test, data.DataSetMissing, "has no folder test"),
        (harm_empty_class, ValueError, "birds has no pictures"),
        (harm_one_class, ValueError, "1 class folders"),
        (harm_unknown_class, ValueError, "birds is not in"),
        (harm_no_test_pictures, ValueError, "dogs has no pictures"),
        (harm_text, ValueError, "x.png is not a picture"),
        (harm_cut_png, ValueError, "0.png cannot be read"),
        (harm_cut_jpeg, ValueError, "x.jpg cannot be read"),
        (harm_empty_file, ValueError, "x.png is not a picture"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    own: Path, cache: Path, harm, kind: type[Exception], says: str
) -> None:
    harm(own)
    with pytest.raises(kind) as e:
        data.load("folder", path=own, cache=cache)
    assert says in str(e.value)
    assert str(own) in str(e.value)
    assert "\n" not in str(e.value)


def test_without_a_folder_test_val_is_the_test_set_as_in_imagenet(own: Path, cache: Path) -> None:
    before = data.load("folder", path=own, cache=cache, channels=3, val_fraction=0.34)
    (own / "test").rename(own / "val")
    d = data.load("folder", path=own, cache=cache, channels=3, val_fraction=0.34)
    for part in ("x_train", "x_val", "x_test", "y_test"):
        assert torch.equal(getattr(d, part), getattr(before, part)), part
    assert any("val is the test set" in note for note in d.notes)


@pytest.mark.parametrize("options", [{"channels": 2}, {"size": 0}, {"size": 2.5}, {"channels": "rgb"}])
def test_bad_options(own: Path, cache: Path, options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        data.load("folder", path=own, cache=cache, **options)


def test_no_path(cache: Path) -> None:
    with pytest.raises(ValueError, match="path=DIR"):
        data.load("folder", cache=cache)


def test_a_folder_too_large_for_memory_is_read_as_it_is_needed(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 5)):
        for c in ("a", "b"):
            (tmp_path / "p" / part / c).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(
                    tmp_path / "p" / part / c / f"{i}.png"
                )
    words = {"cache": tmp_path / "cache", "path": str(tmp_path / "p"), "size": 8, "channels": 3}
    whole = data.load("folder", **words)
    monkeypatch.setattr(folder, "LIMIT", 100)
    streamed = data.load("folder", **{**words, "cache": tmp_path / "other"})
    assert isinstance(streamed.x_train, stream.Pictures) and streamed.x_train.shape == whole.x_train.shape
    assert streamed.fingerprint != whole.fingerprint and "too large for memory" in streamed.notes[-1]
    rows = [[3, 1], [0, 2]]
    for workers in (0, 2):
        for batch, at in zip(streamed.x_train.batches(rows, workers), rows, strict=True):
            assert torch.equal(batch, whole.x_train[at])
    assert torch.equal(streamed.y_test, whole.y_test)
    assert torch.equal(next(streamed.x_test[1::2].batches([[1]], 0)), whole.x_test[[3]])
    (tmp_path / "p" / "train" / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is not a picture that Pillow can read"):
        list(streamed.x_train.batches([range(len(streamed.x_train))], 1))
