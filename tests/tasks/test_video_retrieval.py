"""Video retrieval: pooling against a loop, retrieval's own numbers, and what is no video."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tasks.task_fakes import Lookup, Shelf, random_vector

from multiway.abilities import Encoded, LacksAbility
from multiway.data.source import DataError
from multiway.tasks.retrieval import Retrieval
from multiway.tasks.video_retrieval import VideoRetrieval, encode_videos


class Reel(Shelf):
    """Videos: frame f of picture i shows the number 100 i + f."""

    length = 30

    def frames(self, index: int, count: int) -> list[Image.Image]:
        number = self.rows[index][0]
        chosen = [(2 * part + 1) * self.length // (2 * count) for part in range(count)]
        self.opened.append(index)
        return [self._show(100 * number + place) for place in chosen]

    def _show(self, number: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (number // 65536, number // 256 % 256, number % 256))


def reel(videos: int = 12) -> Reel:
    return Reel([(i, [f"{i} runs", f"{i} jumps"], -1) for i in range(videos)])


def model(noise: float = 1.0) -> Lookup:
    """Each frame is near its video's number, and a text near the video that it begins with."""
    return Lookup(
        lambda number: random_vector(number // 100) + noise * random_vector(10_000 + number),
        lambda text: random_vector(int(text.split()[0])),
    )


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_video_is_the_normalised_mean_of_its_unit_frames(batch):
    source, eyes = reel(), model()
    videos = encode_videos(eyes, source, range(12), frames=5, batch=batch).embedding
    for i in range(12):
        units = [F.normalize(eyes.of_image(100 * i + place), dim=0) for place in (3, 9, 15, 21, 27)]
        torch.testing.assert_close(videos[i], F.normalize(torch.stack(units).mean(0), dim=0))
    assert source.opened == list(range(12))  # each video once


def test_the_order_of_frames_does_not_count():
    class Backwards(Reel):
        def frames(self, index, count):
            return super().frames(index, count)[::-1]

    one = VideoRetrieval(resamples=50).run(model(3.0), reel()).metrics
    other = VideoRetrieval(resamples=50).run(model(3.0), Backwards(reel().rows)).metrics
    assert {n: m.value for n, m in one.items()} == {n: m.value for n, m in other.items()}


def test_one_frame_is_retrieval_of_that_frame():
    class Stills(Reel):
        def image(self, index):
            return self._show(100 * self.rows[index][0] + 15)

    source = Stills([(i, [f"{i} runs"], -1) for i in range(40)])
    videos = VideoRetrieval(frames=1, resamples=50).run(model(2.0), source).metrics
    stills = Retrieval(resamples=50).run(model(2.0), source).metrics
    assert {n.replace("image_", "video_"): m.value for n, m in stills.items()} == {
        n: m.value for n, m in videos.items()
    }
    assert "video_retrieval/R@1" in videos and not any(name.startswith("image_") for name in videos)


def test_more_frames_are_better_where_frames_are_noisy():
    source = reel(60)
    few, many = (
        VideoRetrieval(frames=n, resamples=50).run(model(2.5), source).metrics["mean/R@1"].value for n in (1, 12)
    )
    assert many > few + 0.2


def test_what_is_no_video_is_refused():
    with pytest.raises(DataError, match="is about videos, and shelf@test has pictures"):
        VideoRetrieval().run(model(), Shelf([(0, ["x"], -1)]))
    with pytest.raises(ValueError, match="0 frames"):
        VideoRetrieval(frames=0).run(model(), reel())

    class Short(Reel):
        def frames(self, index, count):
            return super().frames(index, count)[:-1]

    with pytest.raises(DataError, match="row 0: 11 frames were given where 12"):
        VideoRetrieval().run(model(), Short(reel().rows))


def test_a_model_without_a_shared_space_is_refused():
    class Tokens(Lookup):
        def encode_image(self, images, tokens=False):
            return Encoded(torch.zeros(len(images), 0), torch.ones(len(images), 2, 3))

    with pytest.raises(LacksAbility, match="mean of its frames' embeddings"):
        VideoRetrieval().run(Tokens(random_vector, lambda text: random_vector(0)), reel())
