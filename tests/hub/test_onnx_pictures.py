"""The picture reader of an exported folder: pixels of every kind of file as multiway's own, and what it refuses."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from multiway.batch import ViewSpec
from multiway.data.decode import decode
from multiway.data.processor import Processor
from multiway.data.source import BadRow
from multiway.hub.onnx_runtime import FORMAT, Exported, PictureError

VIEW = ViewSpec(size=16, crop="pad", background=200)


@pytest.fixture
def reader(tmp_path: Path) -> Callable[..., Exported]:
    """A folder without graphs: what draws pictures needs none."""

    def made(view: ViewSpec = VIEW, **options: int) -> Exported:
        names = ("size", "crop", "shortest", "mean", "std", "resample", "background")
        picture = {name: getattr(view, name) for name in names}
        about = {"format": FORMAT, "runtime": "onnx", "variants": {"fp32": "."}, "graphs": {}, "text": None}
        (tmp_path / "export.json").write_text(json.dumps(about | {"picture": picture}))
        return Exported(tmp_path, **options)  # type: ignore[arg-type]

    return made


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(values if channels > 1 else values[..., 0], mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def claims(width: int, height: int) -> bytes:
    """A PNG whose header says anything."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    return encoded(noise(), "JPEG", exif=exif)


SIXTEEN = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
FILES = {
    **{kind.lower(): encoded(noise(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")},
    **{mode: encoded(noise(mode)) for mode in ("L", "LA", "RGBA")},
    "one bit": encoded(noise("L").convert("1")),
    "cmyk": encoded(noise("CMYK"), "JPEG"),
    "palette": encoded(noise().quantize(8)),
    "transparent palette": encoded(noise().quantize(8), transparency=0),
    "transparent colour": encoded(noise("L"), transparency=7),
    "sixteen bits": encoded(SIXTEEN),
    "turned": turned(),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_multiway(name: str, reader: Callable[..., Exported], tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(FILES[name])
    want = Processor(VIEW, None).images([decode(FILES[name], name)]).numpy()
    assert np.abs(reader().pixels([tmp_path / "picture"]) - want).max() < 1e-6


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "is not a picture of JPEG, PNG"),
        (b"<html>404", "is not a picture"),
        (b"%PDF-1.7", "render PDF, SVG or PostScript to PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not a picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is not a picture"),
        (claims(9000, 8000), "has 9000 x 8000 pixels; expected 1 to 64,000,000 in all"),
        (claims(60000, 60000), "claims too much"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "32-bit float"),
        *((FILES[kind][: len(FILES[kind]) // 2], "fetch it again") for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(data: bytes, cause: str, reader: Callable[..., Exported], tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(data)
    with pytest.raises(PictureError, match=cause) as error:
        reader().pixels([tmp_path / "picture"])
    assert str(tmp_path / "picture") in str(error.value)


def test_nothing_is_decoded_before_its_size_is_known(
    reader: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture").write_bytes(FILES["png"])
    assert reader(pixels=1200).pixels([tmp_path / "picture"]).shape == (1, 3, 16, 16)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded before the size was checked"))
    for picture in (tmp_path / "picture", Image.open(tmp_path / "picture")):
        with pytest.raises(PictureError, match="40 x 30 pixels; expected 1 to 1,199 in all"):
            reader(pixels=1199).pixels([picture])


def test_a_thread_is_not_blown_up(reader: Callable[..., Exported], tmp_path: Path) -> None:
    """With the shorter side at 16, one pixel by 400,000 would be 6.4 million long."""
    ran = reader(ViewSpec(size=16, crop="center"))
    with pytest.raises(PictureError, match="would be 6,400,000 long"):
        ran.pixels([Image.new("L", (400_000, 1))])
    assert reader(ViewSpec(size=16, crop="pad")).pixels([Image.new("L", (400_000, 1))]).shape == (1, 3, 16, 16)


def test_a_file_that_is_not_there_is_said_by_name(reader: Callable[..., Exported], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cat\.png"):
        reader().pixels([tmp_path / "cat.png"])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_is_refused_where_multiway_refuses_it(reader: Callable[..., Exported], tmp_path: Path) -> None:
    draw, ran, refused = np.random.default_rng(1), reader(), 0
    for kind in ("png", "jpeg", "webp", "gif", "tiff", "bmp"):
        for _ in range(30):
            damaged = bytearray(FILES[kind])
            for place in draw.integers(0, len(damaged), 5):
                damaged[place] = draw.integers(0, 256)
            (tmp_path / "picture").write_bytes(damaged)
            try:
                want = Processor(VIEW, None).images([decode(bytes(damaged), kind)]).numpy()
            except BadRow:
                refused += 1
                with pytest.raises(PictureError):
                    ran.pixels([tmp_path / "picture"])
            else:
                assert np.abs(ran.pixels([tmp_path / "picture"]) - want).max() < 1e-6
    assert 20 < refused < 160
