"""Small tars in the WebDataset convention, for tests."""

import io
import tarfile
from pathlib import Path

from PIL import Image


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [
        m
        for n in range(start, start + count)
        for m in ((f"{n:04d}.png", png(n)), (f"{n:04d}.txt", f"number {n}".encode()))
    ]
