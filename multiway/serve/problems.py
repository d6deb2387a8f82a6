"""What went wrong, as a client is told it: problem details (RFC 9457) that name what was given, what was expected and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response

__all__ = ["MEDIA_TYPE", "TITLES", "Problem", "of_validation"]

MEDIA_TYPE = "application/problem+json"

# kind -> status and title; the kind is the end of `type`, `urn:multiway:problem:KIND`.
TITLES: dict[str, tuple[int, str]] = {
    "malformed": (400, "The request cannot be read"),
    "no-key": (401, "The key is missing or wrong"),
    "not-found": (404, "There is no such route"),
    "method": (405, "The route does not take this method"),
    "upload-timeout": (408, "The request did not arrive in time"),
    "too-large": (413, "The request is too large"),
    "media-type": (415, "The request is of a type that is not read"),
    "picture": (422, "A picture cannot be read"),
    "invalid": (422, "The request does not fit"),
    "text-too-long": (422, "A text is longer than the model reads"),
    "rate": (429, "Too many requests"),
    "client-gone": (499, "The client has gone"),
    "internal": (500, "The server has failed"),
    "overloaded": (503, "The server is busy"),
    "shutting-down": (503, "The server is shutting down"),
    "deadline": (504, "The answer was not ready in time"),
}


class Problem(Exception):
    """Refuse a request.

    Args:
        kind: of `TITLES`.
        detail: what was given and what was expected.
        remedy: what to do about it.
        errors: of a body with several faults, one for each: `{"at": "texts.3", "detail": ...}`.
        retry_after: seconds after which it is worth trying again.
        headers: of the answer, beside those that follow from the rest.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        remedy: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.remedy, self.errors = kind, detail, remedy, errors
        self.status, self.title = TITLES[kind]
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if kind in ("too-large", "upload-timeout"):
            # The rest of the body is not read, so that nothing else can come over this connection.
            self.headers["Connection"] = "close"

    def response(self) -> Response:
        """As an answer."""
        body: dict[str, Any] = {
            "type": f"urn:multiway:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.remedy:
            body["remedy"] = self.remedy
        if self.errors:
            body["errors"] = [dict(error) for error in self.errors]
        return Response(to_json(body), self.status, self.headers, MEDIA_TYPE)


def of_validation(error: ValidationError) -> Problem:
    """What Pydantic found, without the values that were given: they may be pictures."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(each["type"] == "json_invalid" for each in found):
        return Problem("malformed", found[0]["msg"], "send one JSON object in UTF-8")
    errors = [
        {"at": ".".join(map(str, each["loc"])), "detail": each["msg"].removeprefix("Value error, ")} for each in found
    ]
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem(
        "invalid",
        f"{first['at'] or 'the body'}: {first['detail']}{more}",
        "compare the request with /openapi.json",
        errors[:20],
    )
