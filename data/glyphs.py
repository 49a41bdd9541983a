"""Generated colour pictures of digits (or digits and capitals), 32x32, for where a real colour set would need
a download.

In the spirit of the "synthetic numbers" of Ganin and Lempitsky (2015, arXiv 1409.7495, section 4), which are
not published as code: digits of fonts, in random colours, positions, orientations and blur, before a
background. Ours come from the fonts that ship in matplotlib, with random affine maps, and textures,
neighbouring digits and noise by domain (`DOMAINS`).

The same bytes on every machine, as far as possible: FreeType (bundled in matplotlib) rasterises unhinted in
integers; all else is +, -, *, / and comparisons in float32, which IEEE arithmetic fixes, and no sine, power
or matrix product, which it does not.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import DataSetMissing

Floats = NDArray[np.float32]

SIZE = 32
DIGIT = 22  # height of a digit in the masters, in pixels; masters are SIZE x SIZE
CHUNK = 500  # pictures at a time
GRID = 6  # texture cells along an edge
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmb10", "cmr10", "cmss10", "cmtt10", "cmti10",
)  # fmt: skip


class Domain(NamedTuple):
    """How strongly pictures of a domain vary; 0 switches an effect off."""

    ink: str  # "white" on black; "light" or "dark" random colours; "inverted" ground, as in MNIST-M
    texture: float  # contrast of the background's texture, 0..1
    neighbours: float  # probability of a digit cut off at the left, and of one at the right
    noise: float  # largest amplitude of pixel noise, 0..1
    blur: float  # largest share of a 3x3 mean filter
    opacity: float  # smallest opacity of the digit, 0..1
    passes: int = 2  # how often the filter is applied


DOMAINS = {
    "plain": Domain(ink="white", texture=0, neighbours=0, noise=0.05, blur=0.5, opacity=0.8),
    "colour": Domain(ink="light", texture=0, neighbours=0.25, noise=0.1, blur=0.8, opacity=0.6),
    "textured": Domain(ink="light", texture=0.35, neighbours=0.35, noise=0.12, blur=0.8, opacity=0.5),
    "dark": Domain(ink="dark", texture=0.35, neighbours=0.35, noise=0.12, blur=0.8, opacity=0.5),
    "inverted": Domain(ink="inverted", texture=0.5, neighbours=0, noise=0.05, blur=0.5, opacity=0.9),
    "blurred": Domain(ink="light", texture=0, neighbours=0.25, noise=0.05, blur=1, opacity=0.8, passes=8),
}

ALPHABETS = {"digits": "0123456789", "letters": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
OPTIONS = {"domain": "textured", "n_train": 4000, "n_test": 2000, "seed": 0, "alphabet": "digits", "size": 32}


def find_glyphs(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """The font files. Checks the options, since a wrong one must not wait until pictures are made."""
    if options["domain"] not in DOMAINS:
        raise ValueError(f"glyphs has no domain {options['domain']!r}; there are {', '.join(DOMAINS)}")
    if options["alphabet"] not in ALPHABETS:
        raise ValueError(f"glyphs has no alphabet {options['alphabet']!r}; there are {', '.join(ALPHABETS)}")
    if options["size"] not in (16, 32):
        raise ValueError(f"glyphs: size must be 32 or 16 pixels, not {options['size']!r}")
    classes = len(ALPHABETS[options["alphabet"]])  # one picture of each at least
    for key, least in (("n_train", classes), ("n_test", classes), ("seed", 0)):
        n = options[key]
        if isinstance(n, bool) or not isinstance(n, int) or n < least:
            raise ValueError(f"glyphs: {key} must be a whole number of at least {least}, not {n!r}")
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise DataSetMissing(
            "glyphs needs the fonts in the Python package matplotlib, which is not installed; "
            "run `make setup`"
        )
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return "glyphs", [folder / f"{name}.ttf" for name in FONTS]


def build_glyphs(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    alphabet = options["alphabet"]
    classes = ALPHABETS[alphabet]
    masters = np.stack([_masters(f, classes) for f in files])
    domain = DOMAINS[options["domain"]]
    # numbered by place in the lists: the pictures of two domains or alphabets share no random number
    key = (
        options["seed"],
        list(DOMAINS).index(options["domain"]) + 1000 * list(ALPHABETS).index(alphabet),
    )
    arrays: dict[str, NDArray[Any]] = {}
    for number, part in enumerate(("train", "test")):
        n = options[f"n_{part}"]
        arrays[f"y_{part}"] = np.arange(n, dtype=np.int64) % len(classes)
        x = pictures(masters, domain, arrays[f"y_{part}"], (*key, number))
        arrays[f"x_{part}"] = x if options["size"] == SIZE else halved(x)
    what = "digits" if alphabet == "digits" else "digits and letters"
    small = "" if options["size"] == SIZE else " at 16x16"
    return arrays, {
        "classes": list(classes),
        "licence": "generated; fonts DejaVu, STIX and Computer Modern (free licences)",
        "source": "generated from the fonts that ship in matplotlib, after Ganin and Lempitsky 2015",
        "notes": [
            f"generated colour {what}{small}, domain {options['domain']}, "
            f"{options['n_train']:,} + {options['n_test']:,} pictures: no photographs, no published results"
        ],
    }


def halved(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N, C, H, W] -> [N, C, H/2, W/2], each pixel the mean of four, rounded half up."""
    n, c, h, w = x.shape
    sums = x.reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5), dtype=np.uint16)
    return ((sums + 2) // 4).astype(np.uint8)


def _masters(font_file: Path, classes: str) -> Floats:
    """These characters of a font, white on black, [len(classes), SIZE, SIZE] in 0..1, each in the middle."""
    from matplotlib.ft2font import FT2Font, LoadFlags  # 0.4 s: only where pictures are made

    font = FT2Font(str(font_file))

    def bitmap(text: str, size: float) -> NDArray[np.uint8]:
        font.set_size(size, 72)
        font.set_text(text, 0, flags=LoadFlags.NO_HINTING)
        font.draw_glyphs_to_bitmap(antialiased=True)
        image = np.asarray(font.get_image())
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    size = 64 * DIGIT / bitmap("8", 64).shape[0]
    out = np.zeros((len(classes), SIZE, SIZE), np.float32)
    for number, character in enumerate(classes):
        image = bitmap(character, size)
        if image.shape[1] > SIZE:  # a bold W; no digit is that wide
            image = bitmap(character, size * SIZE / (image.shape[1] + 1))
        image = image[:SIZE, :SIZE]
        h, w = image.shape
        top, left = (SIZE - h) // 2, (SIZE - w) // 2
        out[number, top : top + h, left : left + w] = image
    return out / np.float32(255)


def pictures(
    masters: Floats, domain: Domain, y: NDArray[np.int64], key: tuple[int, ...]
) -> NDArray[np.uint8]:
    """uint8 [N, 3, 32, 32] of the characters y. A longer y gives the same first pictures.

    masters: [fonts, classes, SIZE, SIZE]; the font of each picture is drawn.
    """
    # one stream a purpose, each read picture by picture: so the first pictures do not depend on N
    pose, paint, cells, grain = (
        np.random.Generator(np.random.PCG64([*key, purpose])) for purpose in range(4)
    )
    out = np.empty((len(y), 3, SIZE, SIZE), np.uint8)
    for begin in range(0, len(y), CHUNK):
        digits = y[begin : begin + CHUNK]
        n = len(digits)
        mask = _digit_masks(masters, domain, digits, pose.random((n, 16), dtype=np.float32))
        p = paint.random((n, 20), dtype=np.float32)
        ground, ink = _colours(domain, p[:, :6])
        texture = _textures(cells.random((n, 3, GRID, GRID), dtype=np.float32), p[:, 6:12])
        x = (
            ground[:, :, None, None]
            + np.float32(domain.texture) * (0.4 + 0.6 * p[:, 12, None, None, None]) * texture
        )
        x = np.clip(x, 0, 1)
        opacity = np.float32(domain.opacity) + np.float32(1 - domain.opacity) * p[:, 13]
        alpha = (mask * opacity[:, None, None])[:, None]
        x = x + alpha * ((1 - 2 * x) if domain.ink == "inverted" else (ink[:, :, None, None] - x))
        for _ in range(domain.passes):
            share = (np.float32(domain.blur) * p[:, 14])[:, None, None, None]
            x = x + share * (_mean3(x) - x)
        amplitude = np.float32(domain.noise) * p[:, 15]
        x = x + amplitude[:, None, None, None] * (2 * grain.random((n, 3, SIZE, SIZE), dtype=np.float32) - 1)
        if domain.ink == "white":
            x = np.repeat(x[:, :1], 3, axis=1)
        out[begin : begin + n] = np.floor(np.clip(x, 0, 1) * np.float32(255) + np.float32(0.5)).astype(
            np.uint8
        )
    return out


def _digit_masks(masters: Floats, domain: Domain, digits: NDArray[np.int64], u: Floats) -> Floats:
    """[n, SIZE, SIZE] in 0..1: each digit under its own affine map, at times with neighbours."""
    font = (u[:, 0] * len(masters)).astype(np.int64)
    # rotation by up to 15 degrees through t = tan(angle / 2), which needs no sine
    t = np.float32(0.13) * (2 * u[:, 1] - 1)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    scale = np.float32(0.6) + np.float32(0.4) * u[:, 2]  # digits of 13 to 22 pixels
    width = scale * (np.float32(0.75) + np.float32(0.5) * u[:, 3])
    shear = np.float32(0.6) * (u[:, 4] - np.float32(0.5))
    dx, dy = (np.float32(7) * (u[:, k] - np.float32(0.5)) for k in (5, 6))

    grid = np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)
    across, down = grid[None, None, :] - dx[:, None, None], grid[None, :, None] - dy[:, None, None]
    c, s = cos[:, None, None], sin[:, None, None]
    v = (c * down - s * across) / scale[:, None, None]  # where each pixel comes from in the master
    h = (c * across + s * down) / width[:, None, None] + shear[:, None, None] * v
    mask = _sample(masters, font, digits, h, v)
    if domain.neighbours:
        distance = np.float32(15) + np.float32(5) * u[:, 9:11]
        for side, sign in enumerate((-1, 1)):
            there = u[:, 7 + side] < domain.neighbours
            other = (u[:, 11 + side] * masters.shape[1]).astype(np.int64)
            beside = _sample(masters, font, other, h - sign * distance[:, side, None, None], v)
            mask = np.maximum(mask, beside * there[:, None, None])
    return mask


def _sample(
    masters: Floats, font: NDArray[np.int64], digit: NDArray[np.int64], h: Floats, v: Floats
) -> Floats:
    """Bilinear values of masters[font, digit] at (v, h) from the middle; 0 outside."""
    middle = np.float32((SIZE - 1) / 2)
    h, v = np.clip(h + middle, 0, SIZE - 1.001), np.clip(v + middle, 0, SIZE - 1.001)  # the border is black
    left, top = h.astype(np.int64), v.astype(np.int64)
    fh, fv = h - left.astype(np.float32), v - top.astype(np.float32)
    flat = masters.reshape(-1)
    at = ((font * masters.shape[1] + digit) * SIZE * SIZE)[:, None, None] + top * SIZE + left
    upper = flat[at] + fh * (flat[at + 1] - flat[at])
    lower = flat[at + SIZE] + fh * (flat[at + SIZE + 1] - flat[at + SIZE])
    return upper + fv * (lower - upper)


def _colours(domain: Domain, u: Floats) -> tuple[Floats, Floats]:
    """Ground and ink, [n, 3] each, in overlapping ranges, the ink lighter (or darker) by at least 0.3."""
    if domain.ink == "white":
        return np.zeros((len(u), 3), np.float32), np.ones((len(u), 3), np.float32)
    low, high = np.float32(0.6) * u[:, :3], np.float32(0.4) + np.float32(0.6) * u[:, 3:]
    high = np.maximum(high, low + np.float32(0.3))
    if domain.ink == "inverted":
        return u[:, :3], high  # the ink is not used
    return (low, high) if domain.ink == "light" else (1 - low, 1 - high)


def _textures(cells: Floats, u: Floats) -> Floats:
    """[n, 3, SIZE, SIZE] in -1..1: soft blobs (bilinear between random cells) mixed with slanted stripes."""
    place = np.arange(SIZE, dtype=np.float32) * np.float32((GRID - 1) / SIZE)
    k = place.astype(np.int64)
    f = place - k.astype(np.float32)
    rows = cells[:, :, k] + f[:, None] * (cells[:, :, k + 1] - cells[:, :, k])
    blobs = rows[..., k] + f * (rows[..., k + 1] - rows[..., k])
    grid = np.arange(SIZE, dtype=np.float32) / np.float32(SIZE)
    slope = 10 * (u[:, :2] - np.float32(0.5))  # periods across the picture, to either side
    phase = (
        slope[:, :1, None] * grid[None, :, None]
        + slope[:, 1:, None] * grid[None, None, :]
        + u[:, 2, None, None]
    )
    phase = phase - np.floor(phase)
    stripes = 2 * np.abs(2 * phase - 1) - 1  # a triangle wave
    share = u[:, 3, None, None, None] * (u[:, 4, None, None, None] < np.float32(0.6))
    tint = 1 - u[:, 5, None, None, None] * cells[:, :, :1, :1]
    return (1 - share) * (2 * blobs - 1) + share * tint * stripes[:, None]


def _mean3(x: Floats) -> Floats:
    """Mean over 3x3 pixels, the border repeated."""
    p = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / np.float32(9)
