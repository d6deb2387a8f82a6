"""From scenes to pixels: anti-aliased, at any side, a whole batch at once.

A shape is a few straight edges or circles. The share of a pixel that lies inside an edge is its signed distance to the
edge, in pixels, cut to [-1/2, 1/2]; where edges meet in a corner the shares multiply, which is exact for a right angle
along the pixels and close elsewhere. All things of a batch with the same shape and about the same size are drawn
together, each in a window around it. Only additions, products, roots and comparisons of single pixels are used, so
a picture is the same to the bit whatever else is in its batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from multiway.data.scenes.graph import BACKGROUNDS, COLOURS, Scene, Thing

__all__ = ["TONES", "draw_scenes", "masks"]

Array = np.ndarray

# The second tone of each colour's textures. It is still that colour: red goes darker, since lighter would be pink, and
# orange lighter, since darker would be brown.
TONES: dict[str, tuple[int, int, int]] = {
    "red": (112, 8, 16),
    "orange": (255, 206, 140),
    "yellow": (166, 144, 0),
    "green": (158, 220, 160),
    "blue": (150, 184, 255),
    "purple": (190, 140, 228),
    "pink": (176, 78, 132),
    "brown": (196, 156, 124),
}

# Lengths below are in radii of the circle that holds the thing.
_SQUARE = math.sqrt(0.5)  # half a side
_TRIANGLE = 0.5  # from the centre to a side, all equal
_STAR = 0.45  # from the centre to an inner corner
_DIAMOND = 0.64  # half the width; the height is the whole circle's
_ARM, _HALF_ARM = math.sqrt(1 - 0.3**2), 0.3  # of the cross: half a length, half a width
_HOLE = 0.55  # of the ring
_HEART, _HEART_UP = (
    0.5605,
    0.37 * 0.5605,
)  # half a side of the heart's square; how far its centre lies below the thing's
_STRIPE = 0.56  # one light and one dark stripe
_CHECK = 0.8  # two squares
_DOT, _DOT_RADIUS = 0.6, 0.19  # between the centres of dots

_PAD = 2  # pixels around a thing in its window
_STEP = 4  # windows are rounded up to a multiple of this, so that few different ones occur


def _inside(distance: Array) -> Array:
    """Share of each pixel inside an edge; `distance` in pixels, negative inside. Overwrites its argument."""
    np.subtract(np.float32(0.5), distance, out=distance)
    return np.clip(distance, 0.0, 1.0, out=distance)


def _circle(u: Array, v: Array, scale: Array) -> Array:
    return _inside((np.sqrt(u * u + v * v) - 1) * scale)


def _square(u: Array, v: Array, scale: Array) -> Array:
    return _inside((np.abs(u) - _SQUARE) * scale) * _inside((np.abs(v) - _SQUARE) * scale)


def _triangle(u: Array, v: Array, scale: Array) -> Array:
    across, along = np.abs(u) * math.sqrt(0.75), v * 0.5
    right = _inside((across - along - _TRIANGLE) * scale)
    left = _inside((-across - along - _TRIANGLE) * scale)
    return right * left * _inside((v - _TRIANGLE) * scale)


def _star(u: Array, v: Array, scale: Array) -> Array:
    """Five points. Mirrors fold the plane onto the point that is up; there the star is the wedge between two edges."""
    u, up = np.abs(u), -v
    for turn in (0.6 * math.pi, 0.2 * math.pi):  # the lines through inner corners, from up
        out_u, out_up = math.cos(turn), -math.sin(turn)
        beyond = 2 * np.maximum(u * out_u + up * out_up, 0)
        u, up = u - beyond * out_u, up - beyond * out_up
    inner_u, inner_up = _STAR * math.sin(0.2 * math.pi), _STAR * math.cos(0.2 * math.pi)
    length = math.hypot(inner_u, 1 - inner_up)
    across, along = u * ((1 - inner_up) / length), (up - 1) * (inner_u / length)
    return _inside((along + across) * scale) * _inside((along - across) * scale)


def _heart(u: Array, v: Array, scale: Array) -> Array:
    """A square on its tip, and discs over its two upper sides."""
    u, up = np.abs(u), _HEART_UP - v
    middle = _HEART * _SQUARE  # of an upper side
    right = _inside((np.sqrt((u - middle) ** 2 + (up - middle) ** 2) - _HEART) * scale)
    left = _inside((np.sqrt((u + middle) ** 2 + (up - middle) ** 2) - _HEART) * scale)
    rising, falling = (u + up) * _SQUARE, (u - up) * _SQUARE
    square = _inside((np.abs(rising) - _HEART) * scale) * _inside((np.abs(falling) - _HEART) * scale)
    return np.maximum(square, 1 - (1 - right) * (1 - left))


def _cross(u: Array, v: Array, scale: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    flat = _inside((u - _ARM) * scale) * _inside((v - _HALF_ARM) * scale)
    upright = _inside((u - _HALF_ARM) * scale) * _inside((v - _ARM) * scale)
    return 1 - (1 - flat) * (1 - upright)


def _ring(u: Array, v: Array, scale: Array) -> Array:
    distance = np.sqrt(u * u + v * v)
    return _inside((distance - 1) * scale) - _inside((distance - _HOLE) * scale)


def _diamond(u: Array, v: Array, scale: Array) -> Array:
    length = math.hypot(1, _DIAMOND)
    across, along = np.abs(u) * (1 / length), np.abs(v) * (_DIAMOND / length)
    edge = _DIAMOND / length
    inside = _inside((across + along - edge) * scale)
    return inside * _inside((across - along - edge) * scale) * _inside((along - across - edge) * scale)


_SHAPES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
}


def _bands(u: Array, period: float, scale: Array) -> Array:
    """Share of each pixel in the bands |u| < period / 4 (mod period)."""
    place = np.abs(u * (1 / period) - np.rint(u * (1 / period)))  # from the middle of a band, in periods
    return _inside((place - 0.25) * period * scale)


def _striped(u: Array, v: Array, scale: Array) -> Array:
    return _bands(v, _STRIPE, scale)


def _dotted(u: Array, v: Array, scale: Array) -> Array:
    u, v = u * (1 / _DOT), v * (1 / _DOT)
    u, v = u - np.rint(u), v - np.rint(v)
    return _inside((np.sqrt(u * u + v * v) * _DOT - _DOT_RADIUS) * scale)


def _checked(u: Array, v: Array, scale: Array) -> Array:
    # A corner of four squares lies in the middle: even a small thing shows both tones.
    one, other = _bands(u + _CHECK / 4, _CHECK, scale), _bands(v + _CHECK / 4, _CHECK, scale)
    return one + other - 2 * one * other


_TEXTURES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
}

_Placed = tuple[int, Thing]  # number of the picture, and the thing


def draw_scenes(scenes: Sequence[Scene], side: int) -> Array:
    """Pictures of scenes.

    Args:
        scenes: B of them.
        side: of the square pictures, in pixels.

    Returns:
        (B, side, side, 3) uint8, sRGB.
    """
    pixels = _backgrounds(scenes, side)
    groups: defaultdict[tuple[str, int, int], list[_Placed]] = defaultdict(list)
    for number, scene in enumerate(scenes):
        seen: defaultdict[tuple[str, int], int] = defaultdict(int)
        for thing in scene.things:
            kind = (thing.shape, _window(thing, side))
            # Two things of one picture are never in one group: writing the later would lose the earlier's rim.
            groups[(*kind, seen[kind])].append((number, thing))
            seen[kind] += 1
    flat = pixels.reshape(-1, 3)
    for shape, window, turn in sorted(groups):
        _paint(flat, groups[shape, window, turn], shape, window, side)
    return pixels


def masks(scene: Scene, side: int) -> Array:
    """Which share of each pixel each thing covers: (objects, side, side) float32 in [0, 1], in the order of `scene.things`."""
    covered = np.zeros((len(scene.things), side, side), np.float32)
    for number, thing in enumerate(scene.things):
        window = _window(thing, side)
        xs, ys, u, v, scale = _local([thing], window, side)
        covered[number, ys[0, 0] : ys[0, -1] + 1, xs[0, 0] : xs[0, -1] + 1] = _SHAPES[thing.shape](u, v, scale)[0]
    return covered


def _backgrounds(scenes: Sequence[Scene], side: int) -> Array:
    """(B, side, side, 3) uint8; a shaded one goes from the first colour at the top to the second at the bottom."""
    if side < 1:
        raise ValueError(f"a picture needs a side of at least 1 pixel; given {side}")
    first = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32).reshape(-1, 1, 3)
    second = np.array([BACKGROUNDS[scene.second] for scene in scenes], np.float32).reshape(-1, 1, 3)
    depth = ((np.arange(side, dtype=np.float32) + 0.5) / side)[:, None]
    rows = (first + depth * (second - first) + 0.5).astype(np.uint8)
    return np.repeat(rows[:, :, None], side, axis=2)


def _window(thing: Thing, side: int) -> int:
    """Side of the window that a thing is drawn in, in pixels; a matter of the thing alone."""
    needed = math.ceil(2 * thing.radius * side) + 2 * _PAD
    return min(side, -(-needed // _STEP) * _STEP)


def _local(things: Sequence[Thing], window: int, side: int) -> tuple[Array, Array, Array, Array, Array]:
    """The pixels of things' windows, in the picture and in the things' own coordinates.

    Returns:
        (n, window) columns and rows in the picture; (n, window, window) u and v, in radii from the centre, turned with
        the thing; (n, 1, 1) pixels in a radius.
    """
    numbers = [(t.x * side, t.y * side, t.radius * side, math.cos(t.angle), math.sin(t.angle)) for t in things]
    x, y, radius, cosine, sine = np.array(numbers, np.float32).T[..., None]
    steps, last = np.arange(window), side - window
    xs = np.clip(np.floor(x - window / 2).astype(np.int64), 0, last) + steps
    ys = np.clip(np.floor(y - window / 2).astype(np.int64), 0, last) + steps
    right, down = (xs + np.float32(0.5) - x) / radius, (ys + np.float32(0.5) - y) / radius
    right, down = right.astype(np.float32), down.astype(np.float32)
    u = (right * cosine)[:, None, :] + (down * sine)[:, :, None]
    v = (down * cosine)[:, :, None] - (right * sine)[:, None, :]
    return xs, ys, u, v, radius[..., None]


def _paint(flat: Array, placed: Sequence[_Placed], shape: str, window: int, side: int) -> None:
    """Draw things of one shape, each in another picture, over what is there; `flat` is (B * side * side, 3) uint8."""
    things = [thing for _, thing in placed]
    xs, ys, u, v, scale = _local(things, window, side)
    covered = _SHAPES[shape](u, v, scale)
    tone = np.zeros_like(covered)
    for name, texture in _TEXTURES.items():
        own = [place for place, thing in enumerate(things) if thing.texture == name]
        if own:
            tone[own] = texture(u[own], v[own], scale[own])
    starts = np.array([number for number, _ in placed])[:, None] * side
    pixel = (starts + ys)[:, :, None] * side + xs[:, None, :]
    which, row, column = np.nonzero(covered)
    place = pixel[which, row, column]
    share, tone = covered[which, row, column][:, None], tone[which, row, column][:, None]
    first = np.array([COLOURS[thing.colour] for thing in things], np.float32)
    second = np.array([TONES[thing.colour] for thing in things], np.float32)
    colour = first[which] + tone * (second - first)[which]
    under = flat[place].astype(np.float32)
    flat[place] = (under + share * (colour - under) + np.float32(0.5)).astype(np.uint8)
