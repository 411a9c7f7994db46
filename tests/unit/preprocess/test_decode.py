"""Decoding is OpenCV's to the bit, and the cheap check tells whole files from damaged ones."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from preprocess.parts.decode import MOST_BYTES, check, decode, turns_dark

PHOTOS = sorted((Path(__file__).parents[3] / "sut/datasets/demo_photos").glob("*.jpg"))
NOISE = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
SMOOTH = cv2.resize(NOISE[:6, :9], (301, 203), interpolation=cv2.INTER_CUBIC)


def jpeg(*parameters: int) -> bytes:
    return cv2.imencode(".jpg", SMOOTH, parameters)[1].tobytes()


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more marker segment right after its start."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG whose EXIF data has the one tag 0x0112."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return with_segment(data, 0xE1, b"Exif\0\0" + tiff)


def with_byte(data: bytes, after: bytes, offset: int, value: int) -> bytes:
    changed = bytearray(data)
    changed[data.index(after) + offset] = value
    return bytes(changed)


CMYK = simplejpeg.encode_jpeg(np.dstack([SMOOTH, SMOOTH[:, :, :1]]), colorspace="CMYK", colorsubsampling="444")

WHOLE = {
    "jpeg": jpeg(),
    "progressive": jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restart markers": jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "4:1:1": jpeg(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "4:4:4": jpeg(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "grey jpeg": cv2.imencode(".jpg", SMOOTH[:, :, 0])[1].tobytes(),
    "cmyk jpeg": CMYK,
    "1x1 jpeg": cv2.imencode(".jpg", SMOOTH[:1, :1])[1].tobytes(),
    "1x301 jpeg": cv2.imencode(".jpg", SMOOTH[:1])[1].tobytes(),
    "203x1 jpeg": cv2.imencode(".jpg", SMOOTH[:, :1])[1].tobytes(),
    "bytes after the end": jpeg() + b"more" * 100,
    "unknown JFIF revision": with_byte(jpeg(), b"JFIF\0", 5, 9),
    "odd SOS parameters": with_byte(jpeg(), b"\xff\xda", 11, 9),
    "bad colour profile": with_segment(jpeg(), 0xE2, b"ICC_PROFILE\0\5\2abcd"),
    "bad exif": with_segment(jpeg(), 0xE1, b"Exif\0\0MM\0*" + b"\xff" * 20),
    "png": cv2.imencode(".png", NOISE)[1].tobytes(),
    "16-bit png": cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes(),
    "png with alpha": cv2.imencode(".png", np.dstack([NOISE, NOISE[:, :, :1]]))[1].tobytes(),
    "grey png": cv2.imencode(".png", NOISE[:, :, 0])[1].tobytes(),
    "bmp": cv2.imencode(".bmp", NOISE)[1].tobytes(),
    "webp": cv2.imencode(".webp", NOISE)[1].tobytes(),
    "tiff": cv2.imencode(".tiff", NOISE)[1].tobytes(),
    **{f"orientation {n}": with_orientation(jpeg(), n) for n in range(1, 9)},
}


@pytest.mark.parametrize("kind", WHOLE)
def test_decode_is_imread_and_check_passes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(WHOLE[kind])
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)

    pixels = decode(WHOLE[kind])

    check(WHOLE[kind])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_demo_photos(path: Path) -> None:
    data = path.read_bytes()
    check(data)
    np.testing.assert_array_equal(decode(data), cv2.imread(str(path)))


def test_orientation_6_turns_the_picture() -> None:
    turned = decode(with_orientation(jpeg(), 6))
    np.testing.assert_array_equal(turned, cv2.rotate(decode(jpeg()), cv2.ROTATE_90_CLOCKWISE))


def test_grey_has_three_equal_channels() -> None:
    pixels = decode(WHOLE["grey png"])
    np.testing.assert_array_equal(pixels, np.repeat(NOISE[:, :, :1], 3, axis=2))


def test_sixteen_bits_become_eight() -> None:
    np.testing.assert_array_equal(decode(WHOLE["16-bit png"]), NOISE)


@pytest.mark.parametrize("judge", [decode, check])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got 0 bytes"),
        (b"This is not a picture.\n" * 9, "got text of 207 bytes that starts with 'This is not"),
        (b"\x00\x01\x02\x03" * 30, "got 120 bytes that start with 00 01 02 03"),
        (jpeg()[:-2], "a JPEG of"),
        (jpeg()[:600], "ends without an end-of-image marker"),
        (b"\xff\xd8\xff", "a JPEG of 3 bytes"),
        (WHOLE["progressive"][:-2], "a JPEG of"),
        (WHOLE["cmyk jpeg"][:-200], "a JPEG of"),
        (WHOLE["png"][:-12], "a PNG of .* that ends without an end chunk"),
        (WHOLE["png"][: len(WHOLE["png"]) // 2], "a PNG of"),
        (WHOLE["bmp"][:-10], "bytes that start with 42 4d"),
        (WHOLE["webp"][:-10], "bytes that start with 52 49"),
    ],
)
def test_what_cannot_be_decoded_is_described(judge, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(data)


def test_more_pixels_than_opencv_allows_is_a_value_error() -> None:
    header = struct.pack("<2sIHHI", b"BM", 154, 0, 0, 54)
    data = header + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    with pytest.raises(ValueError, match=r"which OpenCV refuses .*CV_IO_MAX_IMAGE_PIXELS"):
        decode(data)


@pytest.mark.parametrize("path", PHOTOS[:4], ids=lambda path: path.stem)
@pytest.mark.parametrize("progressive", [0, 1])
def test_check_finds_a_hole_that_opencv_decodes(path: Path, progressive: int) -> None:
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    whole = cv2.imencode(".jpg", cv2.imread(str(path)), options)[1].tobytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + whole[middle + 600 :]
    assert decode(damaged).shape == decode(whole).shape

    with pytest.raises(ValueError, match=r"damaged picture: got a JPEG of .*(Corrupt JPEG data|Premature end)"):
        check(damaged)


def test_check_finds_every_flipped_bit_of_a_png() -> None:
    whole = WHOLE["png"]
    for position in range(60, len(whole) - 20, 397):
        damaged = bytearray(whole)
        damaged[position] ^= 16
        with pytest.raises(ValueError, match="a PNG of"):
            check(bytes(damaged))


def png_bomb(width: int, height: int, bits: int = 8) -> bytes:
    """A PNG of some seventy bytes that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    written = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def undecoded(*arguments: object, **options: object) -> None:
    raise AssertionError("it was decoded")


@pytest.mark.parametrize(
    "data",
    [
        png_bomb(20_000, 16_667),
        png_bomb(2**31 - 1, 2**31 - 1),
        png_bomb(20_000, 8_334, bits=16),
        with_byte(with_byte(jpeg(), b"\xff\xc0", 5, 0xFF), b"\xff\xc0", 7, 0xFF),
    ],
    ids=["a little too large", "as large as it goes", "16 bits", "jpeg"],
)
def test_what_unfolds_beyond_all_bounds_is_refused_undecoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", undecoded)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", undecoded)

    with pytest.raises(
        ValueError, match=r"^too large to decode: got .* pixels, .* expected 1,000,000,000 at the most$"
    ):
        check(data)


def test_the_bound_on_size_is_met_exactly() -> None:
    pixels = SMOOTH.shape[0] * SMOOTH.shape[1]

    check(WHOLE["jpeg"], 3 * pixels)
    with pytest.raises(ValueError, match=r"301 x 203 pixels, which take 183,309 bytes; .* by the memory that is free"):
        check(WHOLE["jpeg"], 3 * pixels - 1)
    with pytest.raises(ValueError, match="a PNG of 65 bytes that says 20000 x 16666 pixels") as caught:
        check(png_bomb(20_000, 16_666), 20_000 * 16_666 * 3 - 1)
    assert MOST_BYTES > 20_000 * 16_666 * 3
    assert "\n" not in str(caught.value)


def deep(kind: str, largest: int, alpha: bool = False) -> bytes:
    pixels = np.zeros((5, 7, 4 if alpha else 3), np.uint16)
    pixels[2, 3, 1] = largest
    if alpha:
        pixels[:, :, 3] = 65535
    return cv2.imencode(kind, pixels)[1].tobytes()


@pytest.mark.parametrize(
    ("data", "dark"),
    [
        (deep(".png", 4095), True),
        (deep(".png", 4096), False),
        (deep(".tiff", 4095), True),
        (deep(".tiff", 65535), False),
        (deep(".png", 4095, alpha=True), True),
        (cv2.imencode(".png", np.full((5, 7), 4095, np.uint16))[1].tobytes(), True),
        (cv2.imencode(".png", np.full((5, 7), 10, np.uint8))[1].tobytes(), False),
        (WHOLE["jpeg"], False),
    ],
)
def test_twelve_bits_in_sixteen_turn_dark(data: bytes, dark: bool) -> None:
    assert turns_dark(data) is dark
    if dark:
        assert decode(data).max() <= 16
