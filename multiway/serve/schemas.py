"""What each route takes and gives, as types; OpenAPI's document is made of them, with the server's limits in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from multiway.explain.kinds import KINDS, named
from multiway.explain.pairs import Score
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
    "WordMap",
]

Picture = Annotated[
    bytes,
    BeforeValidator(picture_bytes),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "format": "picture", "minLength": 4}),
]
Text = Annotated[str, Field(min_length=1)]
KindName = Annotated[
    str,
    AfterValidator(lambda given: named([given])[0].name),
    WithJsonSchema({"type": "string", "enum": list(KINDS)}),
]
Number = Annotated[int, Field(ge=-1_000, le=1_000)]


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
    """What a model looks at, as `multiway.explain` has it: where a text is seen, what speaks for a class, or what it looks at by itself."""

    image: Picture
    text: str = ""
    kinds: list[KindName] = Field(
        default=[],
        description="maps by name; none for all that the model has but occlusion, which reads the picture again for every place that it covers",
    )
    layers: list[Number] = Field(
        default=[], description="from 0, or from the last if negative; none for those that a kind takes"
    )
    heads: list[Number] = Field(default=[], description="of attention, from 0; none for all")
    window: int = Field(
        0, ge=0, le=10_000, description="of occlusion, in pixels of what the model sees; 0 for a quarter of its side"
    )
    stride: int = Field(0, ge=0, le=10_000, description="by which the window is moved; 0 for half of it")
    baseline: str = Field(
        "mean",
        pattern=r"^([a-z]{1,12}|#[0-9a-fA-F]{6})$",
        description="what occlusion covers with: mean (of the picture), black, grey, white, #rrggbb",
    )
    score: Score = Field("auto", description="that occlusion lets fall; auto is the first of these that the model has")
    against: list[Text] = Field(
        default=[],
        description="other texts that could be meant: maps of a score (occlusion, itc-cam) are of how far it is above their mean",
    )
    each_word: bool = Field(True, description="maps of single words, where a kind has them")
    each_head: bool = Field(False, description="attention of every layer and head, where a kind has it")
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


class WordMap(BaseModel):
    """Of one word: `text[start:stop]` of what was sent."""

    text: str
    start: int
    stop: int
    values: list[list[float]]
    overlay: str | None = None


class Map(BaseModel):
    """Values over a grid of places, rows from the top, each map on a scale of its own."""

    says: str = Field(description="what is seen, and whose idea it is")
    rows: int
    columns: int
    values: list[list[float]] = Field(description="of the whole text, or of the picture where none is asked about")
    overlay: str | None = Field(
        None, description="a PNG as data URI: the map in red over the picture in grey, blue below zero"
    )
    words: list[WordMap] | None = Field(None, description="None for a kind that has no maps of single words")
    heads: list[list[list[list[float]]]] | None = Field(None, description="heads[layer][head][row][column]")
    layers: list[int] = Field(description="that the values are the mean over; empty for kinds without")
    score: float | None = Field(None, description="that the map explains")
    score_name: str | None = Field(None, description="what the score is: `log-odds of a match`, `similarity`, ...")
    chosen: str | None = Field(None, description="what a model that was not told speaks for: the class that it gives")


class Explained(BaseModel):
    """Maps by kind, and why there are no others."""

    text: str
    maps: dict[str, Map]
    absent: dict[str, str] = Field(description="kinds that the model has not, and why; empty where kinds were named")


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
    licence: str | None = Field(
        description="of the weights, as hubs abbreviate it: `other` for several; null where their origin is not known"
    )
    classes: list[str] | None = Field(description="that it was tuned for")
    answers: int | None = Field(description="answers that it chooses among")
    index: int | None = Field(description="pictures that can be searched; None for no index")
    maps: list[str] | None = Field(description="kinds that `/v1/explain` shows of a picture with a text")
    maps_alone: list[str] | None = Field(description="those that it shows without one")
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
