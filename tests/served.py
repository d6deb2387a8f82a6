"""What the tests of the HTTP API share: tiny models with random weights, and pictures as clients send them."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from multiway_batches import INFO, WORDS
from PIL import Image
from toy import ToySource
from tuning import METHODS, VIEW, tuned

from multiway.data.processor import Processor
from multiway.hub.model import Model
from multiway.methods import method_class

SOURCE = ToySource(20)


def model_of(name: str, kind: str = "") -> Model:
    """A method by its name, tuned for a kind of examples if one is named; weights far from even, so that answers differ."""
    torch.manual_seed(0)
    method = tuned(name, kind) if kind else method_class(name)(METHODS[name].resolve(INFO))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(method, Processor(VIEW, WORDS))


def png(row: int | Image.Image) -> bytes:
    """A picture of the toy source, or any, as a file."""
    file = io.BytesIO()
    (row if isinstance(row, Image.Image) else SOURCE.image(row)).save(file, "PNG")
    return file.getvalue()


def b64(picture: int | bytes) -> str:
    """A picture as JSON carries it."""
    return base64.b64encode(picture if isinstance(picture, bytes) else png(picture)).decode()


def problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    """The body of an answer that has to be a problem of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:multiway:problem:{kind}" and body["status"] == status, body
    return body
