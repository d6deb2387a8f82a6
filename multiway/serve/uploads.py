"""Bodies of requests to typed requests, and pictures in them to squares. Nothing from outside is ever opened or fetched by its name.

Two kinds of bodies: JSON, with pictures in base64, and `multipart/form-data`, with pictures as files. A field that is a list is given
as often as it has items there. What a picture is, its content says; names and stated types of files are not looked at.

A picture is drawn as the square that the model sees as soon as it is decoded: what waits for the model is small, whatever was sent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, get_origin

import numpy as np
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from multiway.batch import ViewSpec
from multiway.data.decode import decode
from multiway.data.source import BadRow
from multiway.data.view import draw
from multiway.serve.limits import Limits
from multiway.serve.problems import Problem, of_validation

__all__ = ["Squares", "other_content", "picture_bytes", "read_body"]

Body = TypeVar("Body", bound=BaseModel)

_LONGEST = (
    100  # times its height that a picture may be wide, or the other way round: cropping enlarges the short side first
)
_INLINE = 1 << 16  # bytes of JSON that are parsed in the event loop; more would keep others waiting
_PARTS = 50_000  # of JSON
_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+=-]+)*;base64,", re.ASCII)
_MARKUP = re.compile(rb"<(?:script|svg|html|iframe|!doctype html|\?php)[\s>]", re.IGNORECASE)


def picture_bytes(given: Any) -> bytes:
    """The bytes of a picture in JSON.

    Args:
        given: base64, with or without `data:image/...;base64,` before it; bytes, of a file in a form, are given back.

    Raises:
        ValueError: for anything else, with the remedy.
    """
    if isinstance(given, bytes):
        return given
    if not isinstance(given, str):
        raise ValueError(f"a picture is a string in base64; given {type(given).__name__}")
    head = given[:200].lstrip()
    if re.match(r"(?!data:)[a-zA-Z][a-zA-Z0-9+.-]*:", head):
        raise ValueError("a picture is its bytes in base64; this is an address, and nothing is fetched: send the bytes")
    begin = _URI.match(head)
    if begin:
        given = given.lstrip()[begin.end() :]
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        said = "a path, and no file is opened by name" if re.search(r"^[~.\\]|\.\w{2,5}$|[\\:]", head) else str(error)
        raise ValueError(f"a picture is its bytes in base64; this is not ({said}): send the bytes") from None
    if not data:
        raise ValueError("the picture is empty (0 bytes); send its bytes in base64")
    return data


async def read_body(request: Request, body: type[Body], limits: Limits) -> Body:
    """The body of a request as its type, which is checked in full.

    Raises:
        Problem: naming what does not fit.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise Problem(
            "media-type",
            f"the content type is {kind[:100]!r}; expected application/json or multipart/form-data",
            "send JSON with pictures in base64, or a form with pictures as files",
            headers={"Accept": "application/json, multipart/form-data"},
        )
    try:
        if kind == "application/json":
            data = await request.body()
            parts = sum(map(data.count, (b",", b"[", b"{")))
            if parts > _PARTS:
                # Sixteen megabytes of brackets become gigabytes of objects, and as many errors.
                raise Problem("invalid", f"{parts:,} commas and brackets; at most {_PARTS:,} are read", "send less")
            if len(data) <= _INLINE:
                return body.model_validate_json(data, strict=True)
            return await asyncio.to_thread(body.model_validate_json, data, strict=True)
        return body.model_validate(await _form(request, body, limits))
    except ValidationError as error:
        raise of_validation(error) from None
    except ClientDisconnect:
        raise Problem("client-gone", "the client closed the connection before its request was whole") from None


async def _form(request: Request, body: type[BaseModel], limits: Limits) -> dict[str, Any]:
    """Fields of a form by name, files as bytes."""
    most = limits.labels + limits.texts + 32
    try:
        form = await request.form(max_files=limits.pictures + 2, max_fields=most, max_part_size=1 << 20)
    except HTTPException as error:
        raise Problem("malformed", f"the form cannot be read: {error.detail}", "send a whole form") from None
    found: dict[str, Any] = {}
    try:
        for name in dict.fromkeys(form.keys()):
            given = [await each.read() if isinstance(each, UploadFile) else each for each in form.getlist(name)]
            field = body.model_fields.get(name)
            if field is not None and get_origin(field.annotation) is list:
                found[name] = given
            elif len(given) > 1:
                raise Problem("invalid", f"{name[:100]} is given {len(given)} times; expected one", "send it once")
            else:
                found[name] = given[0]
    finally:
        await form.close()
    return found


def other_content(data: bytes) -> str:
    """What a picture's file is besides a picture; empty if nothing else.

    Files that two kinds of programs read are made to slip past whoever looks at one kind only. Looked for are what ZIP readers (of
    JAR, DOCX, APK) find at a file's end, PDF readers in its first 1,024 bytes and browsers anywhere.
    """
    if b"%PDF-" in data[:1024]:
        return "a PDF"
    found = _MARKUP.search(data)
    if found:
        return f"markup ({found[0][:9].decode('ascii')})"
    if b"PK\x05\x06" in data[-66_000:]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)):
                return "a ZIP archive"
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError):
            return ""
    return ""


class Squares:
    """Decodes uploads, a few at a time, in threads of its own.

    Args:
        view: how the model wants its pictures.
        limits: pixels of a picture, and how many are decoded at a time.
    """

    def __init__(self, view: ViewSpec, limits: Limits) -> None:
        self.view, self.pixels = view, limits.pixels
        self._threads = ThreadPoolExecutor(limits.decoders, thread_name_prefix="decode")

    async def draw(self, pictures: Sequence[bytes]) -> np.ndarray:
        """(n, side, side, 3) uint8 of n uploads.

        Raises:
            Problem: naming the first that is no picture, is damaged, too large, or something else besides.
        """
        loop = asyncio.get_running_loop()
        drawn = [
            loop.run_in_executor(self._threads, self._draw, data, number, len(pictures))
            for number, data in enumerate(pictures)
        ]
        try:
            return np.stack(await asyncio.gather(*drawn))
        finally:
            for each in drawn:
                each.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _draw(self, data: bytes, number: int, count: int) -> np.ndarray:
        where = "the picture" if count == 1 else f"picture {number + 1} of {count}"
        also = other_content(data)
        if also:
            raise Problem(
                "picture",
                f"{where} is {also} too",
                "open it in an image editor and save it anew, which leaves the pixels alone",
            )
        try:
            picture = decode(data, where, self.pixels)
        except BadRow as error:
            detail, _, remedy = str(error).rpartition("; ")
            raise Problem("picture", detail or str(error), remedy if detail else "") from None
        if max(picture.size) > _LONGEST * min(picture.size):
            raise Problem(
                "picture",
                f"{where} is {picture.width}x{picture.height}; at most {_LONGEST} times as long as wide is drawn",
                "crop it first",
            )
        return draw(picture, self.view)
