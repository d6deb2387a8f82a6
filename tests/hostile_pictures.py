"""Uploads that are made to harm, or are broken, and what is said of each."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from PIL import Image
from served import SOURCE, png


def bomb(width: int, height: int, rows: int) -> bytes:
    """A PNG that states its size and has so many rows of zeros: a few kilobytes that become gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    file = io.BytesIO()
    SOURCE.image(3).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


def zipped(picture: bytes) -> bytes:
    file = io.BytesIO(picture)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a.txt", "hidden")
    return file.getvalue()


def gif_that_is_html() -> bytes:
    file = io.BytesIO()
    SOURCE.image(0).convert("P").save(file, "GIF", comment=b"<script>alert(1)</script>")
    return file.getvalue()


HOSTILE = {
    "bomb": (bomb(30_000, 30_000, 50), "900000000 pixels|900 million pixels"),
    "100 megapixels": (bomb(10_000, 10_000, 5), "100 million pixels"),
    "thin": (bomb(1, 20_000_000, 1), "at most 100 times|truncated or damaged"),
    "strip": (png(Image.new("L", (6_000, 2))), "at most 100 times"),
    "cut off": (png(0)[:-40], "truncated or damaged"),
    "truncated jpeg": (jpeg()[: len(jpeg()) // 2], "damaged"),
    "head alone": (png(0)[:20], "breaks off or is damaged|truncated|header is damaged"),
    "zip": (zipped(png(0)), "a ZIP archive too"),
    "pdf": (b"%PDF-1.7 " + png(0), "a PDF too"),
    "pdf inside": (jpeg()[:2] + b"\xff\xfe\x00\x0d%PDF-1.7 ab" + jpeg()[2:], "a PDF too"),
    "html": (gif_that_is_html(), "markup"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "markup|SVG"),
    "text": (b"GET / HTTP/1.0", "this is not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file", "not a picture"),
    "elf": (b"\x7fELF" + bytes(100), "not a picture"),
    "empty gzip": (zlib.compress(bytes(10_000)), "not a picture"),
}
