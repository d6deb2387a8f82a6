"""The app against its own document: whatever the document allows or forbids is sent, and every answer has to be one it states."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from served import SOURCE, b64, model_of, png

from multiway.serve.api import build_app
from multiway.serve.limits import Limits
from multiway.serve.search import PictureIndex

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)
PICTURES = [b64(row) for row in range(3)] + [b64(png(0)[:-20]), base64.b64encode(b"<svg/>").decode(), "", "/etc/passwd"]


@pytest.fixture
def schema() -> Iterator[Any]:
    schemathesis.openapi.format("picture", st.sampled_from(PICTURES[:3]))
    model = model_of("blip")
    app = build_app(model, PictureIndex.build(model, SOURCE), Limits(rate=0, wait_ms=0, tokens=8, top=5))
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app)
    loaded.config.generation.update(modes=list(GenerationMode))
    yield loaded
    app.state.batcher.close()


def hold(schema: Any, examples: int) -> dict[str, set[int]]:
    """Every operation with so many requests; returns the statuses that came back."""
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode if operation.method == "post" else (GenerationMode.POSITIVE,):

            @settings(
                max_examples=examples, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate],
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def test(case: Any) -> None:
                answer = case.call()
                seen.setdefault(case.operation.label, set()).add(answer.status_code)
                hurried = answer.status_code in (503, 504) and "X-Deadline-Ms" in dict(case.headers or {})
                case.validate_response(answer, checks=list(CHECKS[1:] if hurried else CHECKS))

            test()
    return seen


def test_the_document_is_kept(schema: Any) -> None:
    seen = hold(schema, 4)
    assert len(seen) == 12 and all(status != 500 for found in seen.values() for status in found)


@pytest.mark.slow
def test_the_document_is_kept_with_many_requests(schema: Any) -> None:
    seen = hold(schema, 60)
    assert all(status != 500 for found in seen.values() for status in found)
    assert all(200 in found for found in seen.values()), seen
