"""The scenes as a data set: options, splits, galleries, and the protocols that the rest relies on."""

import pickle

import numpy as np
import pytest

from multiway.batch import ViewSpec
from multiway.data.check import check
from multiway.data.loader import Loader
from multiway.data.open import open_source, open_splits, splits_of
from multiway.data.scenes.graph import DIFFICULTIES, make_scene
from multiway.data.scenes.options import CLASSED, SceneOptions
from multiway.data.scenes.parse import parse
from multiway.data.scenes.source import SIDE
from multiway.data.scenes.words import WORD_CLASSES
from multiway.data.source import DataError, DrawsBatches, KnowsWords, Source
from multiway.data.tokenizer import Tokenizer, TokenizerSpec


def test_it_is_what_the_rest_expects():
    source = open_source("scenes@train")
    assert isinstance(source, Source) and isinstance(source, DrawsBatches) and isinstance(source, KnowsWords)
    assert (source.name, source.split, len(source), source.classes, source.templates) == (
        "scenes",
        "train",
        1_000_000,
        (),
        (),
    )
    row = source.row(5)
    assert row.key == "train-5" and row.group == "3 objects" and row.where == "scenes@train, scene 5"
    assert len(set(row.captions)) == 4 and source.scene(5) == make_scene(5, 0, DIFFICULTIES["medium"])
    assert source.row(999_999).captions
    for index in (-1, 1_000_000):
        with pytest.raises(IndexError, match="which has 1,000,000"):
            source.row(index)
    again = pickle.loads(pickle.dumps(source))  # as data loading processes that are spawned get it
    assert again.row(5) == row


def test_pictures_of_rows_at_any_side():
    source = open_source("scenes:hard@val")
    image = source.image(3)
    assert image.size == (SIDE, SIDE) and image.mode == "RGB"
    assert np.array_equal(source.squares(np.array([7, 3]), SIDE)[1], np.asarray(image))
    assert source.squares(np.array([3]), 24).shape == (1, 24, 24, 3)


def test_splits_share_no_picture():
    options = "easy,samples=3000,gallery=300"
    assert splits_of(f"scenes:{options}") == ("train", "val", "test")
    splits = open_splits(f"scenes:{options}")
    assert [len(split) for split in splits] == [3000, 300, 300]
    ids = [{split.row(row).image_id for row in range(len(split))} for split in splits]
    scenes = [{split.scene(row) for row in range(len(split))} for split in splits]
    for each in (ids, scenes):
        assert [len(own) for own in each] == [3000, 300, 300] and len(set.union(*each)) == 3600
    whole = open_source(f"scenes:{options}@all")
    assert len(whole) == 3600 and len({whole.row(row).key for row in range(3600)}) == 3600


@pytest.mark.parametrize("level", DIFFICULTIES)
def test_a_gallery_caption_is_true_of_one_picture(level):
    source = open_source(f"scenes:{level},gallery=150@test")
    scenes = [source.scene(row) for row in range(len(source))]
    assert len({scene.content for scene in scenes}) == 150
    said = [caption for row in range(150) for caption in source.row(row).captions]
    assert len(said) == len(set(said)) == 300
    for row in range(0, 150, 5):
        for caption in source.row(row).captions:
            assert [n for n, scene in enumerate(scenes) if parse(caption).holds(scene)] == [row]


def test_a_larger_gallery_begins_with_the_smaller():
    small, large = (open_source(f"scenes:gallery={count}@val") for count in (20, 60))
    assert [small.row(n).captions for n in range(20)] == [large.row(n).captions for n in range(20)]


def test_options_change_what_they_say():
    world = open_source("scenes:hard,objects=2-3,samples=50_000,seed=3,captions=all,swap=0.4")
    assert len(world) == 50_000 and world.name == "scenes:hard,objects=2-3,samples=50000,seed=3,captions=all,swap=0.4"
    assert {len(world.scene(row).things) for row in range(50)} == {2, 3}
    kinds = [
        parse(caption) for row in range(60) if world.noise(row).kind == "none" for caption in world.row(row).captions
    ]
    assert any(claim.counts and not claim.things for claim in kinds) and any(not claim.complete for claim in kinds)
    assert {open_source("scenes:objects=4").row(n).group for n in range(9)} == {"4 objects"}
    assert open_source("scenes:objects=1").row(0).group == "1 object"
    assert open_source("scenes:seed=1").scene(0) != open_source("scenes").scene(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hard",
        "easy,objects=1-2,seed=7",
        "samples=10,captions=all,attribute=0.25,junk=0.5",
        "objects=3-3,gallery=5",
        "easy,objects=1,sizes=large,classes=colour",
        "sizes=medium-large",
    ],
)
def test_said_is_parse_undone(text):
    options = SceneOptions.parse(text)
    for training in (True, False):
        again = SceneOptions.parse(options.said(training))
        assert again.said(training) == options.said(training)
    assert (
        SceneOptions.parse(",".join(filter(None, (options.said(True), "gallery=5" * ("gallery" in text))))) == options
    )


def test_fingerprints_tell_worlds_apart_and_galleries_from_what_does_not_touch_them():
    specs = ["scenes", "scenes:hard", "scenes:seed=1", "scenes:samples=9", "scenes:swap=0.1", "scenes@val", "scenes@test",
             "scenes:gallery=9@val", "scenes:captions=all", "scenes:sizes=large", "scenes:objects=1", "scenes:objects=1,classes=colour",
             "scenes:objects=1,classes=shape"]  # fmt: skip
    prints = [open_source(spec).fingerprint for spec in specs]
    assert len(set(prints)) == len(specs)
    for same in ("scenes:medium@val", "scenes:swap=0.1,samples=5@val", "scenes:captions=all@val"):
        assert open_source(same).fingerprint == open_source("scenes@val").fingerprint
        assert open_source(same).name == "scenes"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("scenes:impossible", "no difficulty or option 'impossible'; there are: a difficulty .easy, medium, hard"),
        ("scenes:colours=3", "no option 'colours=3'; there are"),
        ("scenes:objects=0-2", "objects=0-2 cannot be; expected for example objects=2 or objects=1-3, at most 4"),
        ("scenes:objects=3-2", "objects=3-2 cannot be"),
        ("scenes:objects=5", "at most 4"),
        ("scenes:sizes=huge", "sizes=huge cannot be; expected for example sizes=large or sizes=small-medium"),
        ("scenes:sizes=large-small", "sizes=large-small cannot be"),
        ("scenes:classes=size", "no classes 'size'; expected classes=shape or classes=colour"),
        ("scenes:classes=colour", "of several things none is the picture's; add objects=1"),
        ("scenes:samples=0", "samples= a whole number from 1 to 100,000,000"),
        ("scenes:samples=many", "samples=many cannot be"),
        ("scenes:seed=-1", "seed= a whole number"),
        ("scenes:captions=some", "expected captions=full or captions=all"),
        ("scenes:swap=lots", "swap= a share of the rows from 0 to 1"),
        ("scenes:swap=2", "scenes:swap=2: the share of swap is 2.0"),
        ("scenes:swap=0.6,junk=0.6", "more than 1 together"),
        ("scenes:easy,hard", "gives difficulty twice"),
        ("scenes:swap=0.1,swap=0.1", "gives swap twice"),
        ("scenes:easy,objects=1,gallery=129@val", "too few different contents for a gallery of 129: 128 were found"),
        ("scenes@dev", None),
        ("scenes@nope", "no rows in split 'nope'; it has train, val, test and all"),
        ("digits:hard", "digits takes nothing after the colon"),
    ],
)
def test_bad_options_are_explained(spec, complaint):
    if complaint is None:
        assert open_source(spec).split == "val"  # the usual other name
        return
    with pytest.raises(DataError, match=complaint):
        open_source(spec)


def test_the_tokeniser_sees_every_word():
    source = open_source("scenes:hard")
    said = source.tokenizer_captions
    found = {word.strip(",;:") for caption in said for word in caption.split()}
    assert {
        word for own in source.word_classes.values() for word in own
    } <= found and source.word_classes == WORD_CLASSES
    tokenizer = Tokenizer.train(said, TokenizerSpec(vocabulary=512, context=48))
    longest = max(tokenizer([caption for row in range(500) for caption in source.row(row).captions]).mask.sum(1))
    assert longest <= 42  # each word is one token; start, end, and punctuation beside them


def test_training_batches_come_out():
    source = open_source("scenes:samples=64")
    tokenizer = Tokenizer.train(source.sample_captions(200), TokenizerSpec(vocabulary=512, context=40))
    batch = Loader(source, ViewSpec(size=32), tokenizer, batch=16).batch(2)
    assert batch.images.shape == (16, 3, 32, 32) and len(set(batch.image_id.tolist())) == 16


def test_data_check_has_nothing_to_complain_about():
    report = check(open_splits("scenes:samples=60,gallery=60"))
    assert [split.rows for split in report.splits.values()] == [60, 60, 60]
    assert not any("same" in each or "pixel for pixel" in each or "cannot" in each for each in report.findings)


def test_a_world_of_single_things_has_their_shapes_for_classes() -> None:
    one = open_source("scenes:medium,objects=1,gallery=40@test")
    assert len(one.classes) > 2 and open_source("scenes:easy,gallery=8@test").classes == ()
    for number in range(len(one)):
        row = one.row(number)
        assert one.classes[row.label] in row.captions[0] and one.scene(number).things[0].shape == one.classes[row.label]
    assert {row.label for row in map(one.row, range(len(one)))} == set(range(len(one.classes)))


@pytest.mark.parametrize("kind", CLASSED)
def test_classes_that_are_asked_for_by_name_may_show_equal_contents_twice(kind: str) -> None:
    one = open_source(f"scenes:easy,objects=1,sizes=large,classes={kind},gallery=150@test")
    assert len(one) == 150 > len({one.scene(number).content for number in range(len(one))})
    for number in range(len(one)):
        row, (thing,) = one.row(number), one.scene(number).things
        assert one.classes[row.label] == getattr(thing, kind) and thing.size == "large"
    assert {row.label for row in map(one.row, range(len(one)))} == set(range(len(one.classes)))


def test_only_sizes_of_the_span_are_drawn_and_known() -> None:
    found = {
        thing.size for number in range(60) for thing in open_source("scenes:sizes=medium-large").scene(number).things
    }
    assert found == {"medium", "large"}
    assert SceneOptions.parse("hard,sizes=small-medium").world.words["size"] == ("small", "medium")
