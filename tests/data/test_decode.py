"""Strict decoding: every kind of bad file by its cause, every odd mode by its pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from multiway.data.decode import decode, picture_suffix
from multiway.data.source import BadRow

WHERE = "pairs.jsonl, line 7"


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(values if channels > 1 else values[..., 0], mode)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says anything."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data or zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_picture_is_refused_in_every_format(kind):
    data = encoded(noise(), kind)
    decode(data, WHERE)
    with pytest.raises(BadRow, match=r"pairs\.jsonl, line 7.*fetch it again"):
        decode(data[: len(data) // 2], WHERE)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_lossless_pixels_and_mode_are_kept(mode):
    image = noise(mode)
    found = decode(encoded(image), WHERE)
    assert found.mode == mode
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404", "HTML"),
        (b"\n  <html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b'{"error": 403}', "JSON"),
        (b"\x00\x01\x02\x03 something else", "00 01 02 03"),
    ],
)
def test_what_is_no_picture_is_named(data, cause):
    with pytest.raises(BadRow, match="line 7: this is not a picture") as error:
        decode(data, WHERE)
    assert cause in str(error.value)


def test_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded before the size was checked"))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(BadRow, match="9000x8000, 72 million pixels, more than the 64 million"):
        decode(png(9000, 8000), WHERE)
    with pytest.raises(BadRow, match="too large"):
        decode(png(60000, 60000), WHERE)
    with pytest.raises(BadRow, match="more than"):
        decode(encoded(noise()), WHERE, ceiling=1199)
    assert before == Image.MAX_IMAGE_PIXELS


def test_ceiling_itself_is_allowed():
    assert decode(encoded(noise()), WHERE, ceiling=1200).size == (40, 30)


def test_zero_size_is_refused():
    with pytest.raises(BadRow, match="line 7"):
        decode(png(0, 4), WHERE)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), WHERE)
    assert found.convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (20, 10), "white")
    image.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    found = decode(encoded(image, "JPEG", exif=exif, quality=95), WHERE)
    assert found.size == (10, 20)
    top, bottom = found.getpixel((5, 2)), found.getpixel((5, 17))
    assert top[1] < 80 < 200 < bottom[1]


def test_palette_keeps_colours_and_transparency():
    plain = noise().quantize(8)
    assert np.array_equal(np.asarray(decode(encoded(plain), WHERE)), np.asarray(plain.convert("RGB")))
    glass = decode(encoded(plain, transparency=0), WHERE)
    assert glass.mode == "RGBA"
    assert ((np.asarray(glass)[..., 3] == 0) == (np.asarray(plain) == 0)).all()


def test_a_single_transparent_colour_becomes_alpha():
    image = Image.new("RGB", (4, 4), "white")
    image.putpixel((1, 1), (1, 2, 3))
    found = decode(encoded(image, transparency=(1, 2, 3)), WHERE)
    assert found.mode == "RGBA" and found.getpixel((1, 1))[3] == 0 and found.getpixel((0, 0))[3] == 255


def test_sixteen_bit_greys_keep_their_shades():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = np.asarray(decode(encoded(Image.fromarray(values)), WHERE))
    assert found.dtype == np.uint8
    assert np.array_equal(found, values >> 8)


def test_other_modes():
    assert decode(encoded(noise("CMYK"), "JPEG"), WHERE).mode == "RGB"
    assert decode(encoded(noise("L").convert("1")), WHERE).mode == "L"
    with pytest.raises(BadRow, match="32-bit float"):
        decode(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), WHERE)


def test_paths_name_file_and_cause(tmp_path):
    file = tmp_path / "cat.png"
    noise().save(file)
    image = decode(file, WHERE)
    file.unlink()
    assert image.getpixel((0, 0))  # nothing is read lazily
    with pytest.raises(BadRow, match=r"line 7: cat\.png: there is no such file"):
        decode(file, WHERE)
    with pytest.raises(BadRow, match="cannot be read"):
        decode(tmp_path, WHERE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_never_escapes_as_another_error():
    whole = {kind: encoded(noise(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")}
    draw = np.random.default_rng(1)
    for data in whole.values():
        for _ in range(60):
            damaged = bytearray(data)
            for place in draw.integers(0, len(data), 5):
                damaged[place] = draw.integers(0, 256)
            try:
                assert decode(bytes(damaged), WHERE).mode in ("L", "LA", "RGB", "RGBA")
            except BadRow as error:
                assert WHERE in str(error)


def test_suffix_by_content():
    assert [picture_suffix(encoded(noise(), kind)) for kind in ("JPEG", "PNG", "WEBP", "GIF")] == [
        "jpg",
        "png",
        "webp",
        "",
    ]
