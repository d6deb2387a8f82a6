"""What each route takes and gives, as types; OpenAPI's document is made of them, with the server's limits in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from multiway.serve.uploads import picture_bytes

__all__ = [
    "About",
    "Answer",
    "Answered",
    "Ask",
    "Asked",
    "Caption",
    "Captioned",
    "Classified",
    "Classify",
    "Compare",
    "Compared",
    "EmbedImage",
    "EmbedText",
    "Embedded",
    "Explain",
    "Explained",
    "Found",
    "Label",
    "Map",
    "Match",
    "Matched",
    "ProblemBody",
    "Search",
    "SearchHit",
    "State",
]

Picture = Annotated[
    bytes,
    BeforeValidator(picture_bytes),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "format": "picture", "minLength": 4}),
]
Text = Annotated[str, Field(min_length=1)]


class Asked(BaseModel):
    """What all requests have in common: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _WithTexts(Asked):
    truncate: bool = Field(
        False, description="cut texts that are longer than the model reads, instead of refusing them"
    )


class EmbedImage(Asked):
    """Pictures to be embedded."""

    images: list[Picture] = Field(min_length=1)
    encoding: Literal["float", "base64"] = Field("float", description="base64: little-endian float32, row by row")


class EmbedText(_WithTexts):
    """Texts to be embedded."""

    texts: list[Text] = Field(min_length=1)
    encoding: Literal["float", "base64"] = "float"


class Compare(_WithTexts):
    """Every picture with every text, each encoded by itself."""

    images: list[Picture] = Field(min_length=1)
    texts: list[Text] = Field(min_length=1)


class Match(_WithTexts):
    """Picture i and text i read together; one picture with several texts, or one text with several pictures, too."""

    images: list[Picture] = Field(min_length=1)
    texts: list[Text] = Field(min_length=1)


class Search(_WithTexts):
    """Words, a picture, or both."""

    text: str = ""
    image: Picture | None = None
    weight: float = Field(0.5, ge=0, le=1, description="of the words beside the picture")
    top: int = Field(10, ge=1)
    rerank: bool = Field(False, description="read the hits together with the words, and rank them by that")
    thumbnail: int = Field(0, ge=0, le=320, description="side of the hits' pictures in pixels; 0 for none")


class Caption(_WithTexts):
    """Pictures to be described."""

    images: list[Picture] = Field(min_length=1)
    prompt: str = Field("", description="what every caption begins with")
    strategy: Literal["greedy", "beam", "nucleus"] = "beam"
    beams: int = Field(3, ge=1, le=10)
    max_length: int = Field(40, ge=1, description="tokens, start, prompt and end included")
    min_length: int = Field(0, ge=0)
    samples: int = Field(1, ge=1, le=10, description="captions of each picture; beam gives its best, nucleus draws")
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    top_p: float = Field(0.9, gt=0, le=1)
    temperature: float = Field(1.0, gt=0, le=10)
    seed: int = Field(0, ge=0, lt=1 << 63, description="of nucleus: the same seed draws the same")


class Ask(_WithTexts):
    """A question about a picture."""

    image: Picture
    question: Text
    top: int = Field(5, ge=1)


class Classify(_WithTexts):
    """Pictures to be sorted: into any labels, or, of a model that was tuned for classes, into these."""

    images: list[Picture] = Field(min_length=1)
    labels: list[Text] = Field(default=[])
    templates: list[Text] = Field(default=["{}"], min_length=1, description="sentences with one {} for the label")
    top: int = Field(5, ge=1)


class Explain(_WithTexts):
    """What a model looks at: for a text, for the class it gives, or of itself."""

    image: Picture
    text: str = ""
    overlay: int = Field(0, ge=0, le=512, description="side of the maps drawn over the picture, in pixels; 0 for none")


class Embedded(BaseModel):
    """Unit vectors: inner products are cosines."""

    model: str
    width: int
    embeddings: list[list[float]] | list[str]


class Compared(BaseModel):
    """similarities[i][j] of picture i with text j."""

    measure: Literal["cosine", "similarity"]
    similarities: list[list[float]]


class Matched(BaseModel):
    """Of each pair, how likely the two belong together."""

    log_odds: list[float]
    probabilities: list[float]


class SearchHit(BaseModel):
    """One picture that was found."""

    rank: int
    score: float
    key: str
    caption: str
    thumbnail: str | None = Field(None, description="a PNG as data URI")


class Found(BaseModel):
    """Hits, best first, among so many pictures."""

    measure: Literal["cosine", "similarity", "log-odds"]
    among: int
    hits: list[SearchHit]


class Captioned(BaseModel):
    """captions[i][j]: the j-th of picture i."""

    captions: list[list[str]]


class Answer(BaseModel):
    """One answer of the list."""

    answer: str
    score: float


class Answered(BaseModel):
    """The best answers; `log-probability` of one that is spelt, else the `score` of a classifier."""

    measure: Literal["log-probability", "score"]
    among: int
    answers: list[Answer]
    written: str | None = Field(None, description="in the model's own words, of one that was tuned to write them")


class Label(BaseModel):
    """One label of a picture; `probability` among the classes a model was tuned for, None where labels are free."""

    label: str
    score: float
    probability: float | None = None


class Classified(BaseModel):
    """The best labels of each picture."""

    measure: Literal["cosine", "similarity", "logit"]
    labels: list[list[Label]]


class Map(BaseModel):
    """Values over a grid of places, rows from the top; not negative, each map on a scale of its own."""

    name: str
    rows: int
    columns: int
    values: list[list[float]]
    overlay: str | None = Field(None, description="a PNG as data URI: the map in red over the picture in grey")


class Explained(BaseModel):
    """Maps of what was looked at, and the score that they speak for, if they speak for one."""

    kind: Literal["words", "text", "class", "attention"]
    method: str
    measure: Literal["log-odds", "similarity", "probability"] | None = None
    score: float | None = None
    maps: list[Map]


class About(BaseModel):
    """The model that answers."""

    name: str
    version: str
    parameters: int
    abilities: list[str]
    routes: list[str]
    image_size: int
    context: int | None = Field(description="tokens of a text; None for a model that reads none")
    width: int | None = Field(description="of embeddings; None where there are none")
    precision: str
    device: str
    licence: str | None = Field(description="of the weights, where their origin says so")
    classes: list[str] | None = Field(description="that it was tuned for")
    answers: int | None = Field(description="answers that it chooses among")
    index: int | None = Field(description="pictures that can be searched; None for no index")
    limits: dict[str, float]


class State(BaseModel):
    """Of `/healthz` and `/readyz`."""

    status: Literal["ok", "ready"]


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str | None = None
    errors: list[dict[str, Any]] | None = None
