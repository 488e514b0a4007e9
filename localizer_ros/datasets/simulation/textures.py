"""Procedural paint: (H, W, 3) uint8 RGB textures, deterministic for a given generator."""

from __future__ import annotations

import cv2
import numpy as np

from localizer_ros.core.types import UInt8

Colour = tuple[int, int, int]


def _colour(rng: np.random.Generator, low: int = 20, high: int = 236) -> Colour:
    r, g, b = rng.integers(low, high, 3).tolist()
    return r, g, b


def _shaded(colour: Colour, factor: float) -> Colour:
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


def plain(rng: np.random.Generator, height: int, width: int, colour: Colour, grain: float = 4.0) -> UInt8:
    """Painted plaster: one colour with faint stains and grain (sigma ``grain``), the textureless parts."""
    field = np.zeros((height, width), np.float32)
    for cell, weight in ((160, 1.0), (32, 0.5), (4, 0.7)):
        small = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        field += weight * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    texture = np.asarray(colour, np.float32) + grain * field[..., None]
    return np.clip(texture, 0, 255).astype(np.uint8)


def poster(rng: np.random.Generator, height: int, width: int) -> UInt8:
    """A picture full of corners that no other picture has: shapes, strokes and writing on a gradient."""
    top, bottom = np.asarray(_colour(rng), np.float32), np.asarray(_colour(rng), np.float32)
    ramp = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    image = np.ascontiguousarray(np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)))
    image = image.astype(np.uint8)
    extent = min(height, width)
    for _ in range(int(rng.integers(14, 30))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(extent * rng.uniform(0.05, 0.3)) + 2
        kind = int(rng.integers(0, 5))
        if kind == 0:
            cv2.rectangle(image, (x, y), (x + size, y + int(size * rng.uniform(0.4, 1.6))), _colour(rng), -1)
        elif kind == 1:
            cv2.circle(image, (x, y), size // 2 + 1, _colour(rng), -1, cv2.LINE_AA)
        elif kind == 2:
            end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
            cv2.line(image, (x, y), end, _colour(rng), 1 + size // 12, cv2.LINE_AA)
        elif kind == 3:
            corners = (np.array([x, y]) + rng.integers(-size, size + 1, (int(rng.integers(3, 6)), 2))).astype(
                np.int32
            )
            cv2.fillPoly(image, [corners], _colour(rng), cv2.LINE_AA)
        else:
            write(rng, image, (x - size, y), size / 45.0 + 0.3)
    frame = max(2, extent // 30)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), _colour(rng, 10, 90), frame)
    return image


def write(rng: np.random.Generator, image: UInt8, at: tuple[int, int], scale: float) -> None:
    """Draw a random word into ``image`` with its lower left corner ``at``."""
    letters = rng.integers(0, 26, int(rng.integers(2, 7)))
    word = "".join(chr(ord("A") + int(letter)) for letter in letters)
    colour = _colour(rng, 0, 256)
    cv2.putText(
        image, word, at, cv2.FONT_HERSHEY_DUPLEX, scale, colour, max(1, round(2 * scale)), cv2.LINE_AA
    )


def door(rng: np.random.Generator, height: int, width: int) -> UInt8:
    """A door with frame, panels, handle and a number plate."""
    wood = _colour(rng, 70, 190)
    image = plain(rng, height, width, wood, 5.0)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), _shaded(wood, 0.5), max(2, width // 18))
    for low, high in ((0.1, 0.45), (0.55, 0.92)):
        corners = ((int(0.18 * width), int(low * height)), (int(0.82 * width), int(high * height)))
        cv2.rectangle(image, *corners, _shaded(wood, 0.75), max(1, width // 40))
    cv2.circle(
        image, (int(0.88 * width), int(0.52 * height)), max(2, width // 25), (225, 205, 120), -1, cv2.LINE_AA
    )
    plate = image[int(0.3 * height) : int(0.36 * height), int(0.3 * width) : int(0.7 * width)]
    plate[:] = 240
    write(rng, plate, (2, plate.shape[0] - 3), plate.shape[0] / 32.0)
    return image


def wall(rng: np.random.Generator, size_m: tuple[float, float], scale: float, repetition: float) -> UInt8:
    """A wall with a skirting board, and doors and pictures between bare stretches.

    Args:
        rng: generator.
        size_m: (width, height).
        scale: texels a metre.
        repetition: share of pictures and doors that look the same everywhere.
    """
    width, height = (max(2, round(extent * scale)) for extent in size_m)
    image = plain(rng, height, width, _colour(rng, 130, 225))
    cv2.rectangle(image, (0, height - int(0.1 * scale)), (width, height), _colour(rng, 40, 120), -1)
    x_m = float(rng.uniform(0.2, 0.8))
    while x_m < size_m[0] - 0.5:
        same = rng.random() < repetition
        # A generator of its own makes the copies equal.
        paint = np.random.default_rng(7) if same else rng
        if rng.random() < 0.25 and size_m[1] > 2.2:
            w_m, h_m, y_m = 0.9, 2.0, size_m[1] - 2.0
            item = door(paint, round(h_m * scale), round(w_m * scale))
        else:
            w_m, h_m = (1.0, 0.8) if same else (float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.5, 1.2)))
            y_m = size_m[1] - min(size_m[1] - 0.1, float(rng.uniform(1.3, 2.3)))
            item = poster(paint, round(h_m * scale), round(w_m * scale))
        _paste(image, item, round(x_m * scale), round(y_m * scale))
        x_m += w_m + float(rng.uniform(0.3, 1.3))
    return image


def floor(rng: np.random.Generator, size_m: tuple[float, float], scale: float) -> UInt8:
    """Tiles, which repeat, with worn spots and rugs, which do not."""
    width, height = (max(2, round(extent * scale)) for extent in size_m)
    image = plain(rng, height, width, _colour(rng, 110, 190), 7.0).astype(np.float32)
    tile = 0.5
    tiles = rng.normal(1.0, 0.05, (int(size_m[1] / tile) + 1, int(size_m[0] / tile) + 1)).astype(np.float32)
    rows = np.minimum((np.arange(height) / (tile * scale)).astype(int), tiles.shape[0] - 1)
    cols = np.minimum((np.arange(width) / (tile * scale)).astype(int), tiles.shape[1] - 1)
    image *= tiles[rows][:, cols][..., None]
    painted = np.clip(image, 0, 255).astype(np.uint8)
    for edge in range(tiles.shape[1]):
        cv2.line(
            painted, (round(edge * tile * scale), 0), (round(edge * tile * scale), height), (70, 70, 70), 1
        )
    for edge in range(tiles.shape[0]):
        cv2.line(
            painted, (0, round(edge * tile * scale)), (width, round(edge * tile * scale)), (70, 70, 70), 1
        )
    for _ in range(int(size_m[0] * size_m[1] / 12.0)):
        w_m, h_m = rng.uniform(0.8, 2.2, 2)
        item = poster(rng, round(h_m * scale), round(w_m * scale))
        _paste(painted, item, int(rng.integers(0, width)), int(rng.integers(0, height)))
    return painted


def ceiling(rng: np.random.Generator, size_m: tuple[float, float], scale: float) -> UInt8:
    """Panels with lamps and air vents."""
    width, height = (max(2, round(extent * scale)) for extent in size_m)
    image = plain(rng, height, width, (205, 205, 200), 3.0)
    panel = 0.6 * scale
    for edge in range(int(width / panel) + 1):
        cv2.line(image, (round(edge * panel), 0), (round(edge * panel), height), (150, 150, 150), 1)
    for edge in range(int(height / panel) + 1):
        cv2.line(image, (0, round(edge * panel)), (width, round(edge * panel)), (150, 150, 150), 1)
    for _ in range(int(size_m[0] * size_m[1] / 5.0)):
        x, y = (
            round(int(rng.integers(0, int(width / panel))) * panel),
            round(int(rng.integers(0, int(height / panel))) * panel),
        )
        cell = image[y + 2 : y + round(panel) - 1, x + 2 : x + round(panel) - 1]
        if rng.random() < 0.5:
            cell[:] = 250
        else:
            cell[:] = 110
            cell[:: max(2, round(0.05 * scale))] = 60
    return image


def box_side(rng: np.random.Generator, size_m: tuple[float, float], scale: float) -> UInt8:
    """The side of a piece of furniture: a shelf with books, a labelled crate, or a plain cabinet."""
    width, height = (max(4, round(extent * scale)) for extent in size_m)
    base = _colour(rng, 60, 200)
    image = plain(rng, height, width, base, 5.0)
    kind = rng.random()
    if kind < 0.4 and height > 0.5 * scale:
        shelf = max(8, round(0.35 * scale))
        for top in range(0, height - shelf // 2, shelf):
            x = 3
            while x < width - 3:
                thick = int(rng.integers(max(2, shelf // 12), max(4, shelf // 4)))
                rise = int(shelf * rng.uniform(0.05, 0.4))
                corners = ((x, top + rise), (min(x + thick, width - 3), top + shelf - 4))
                cv2.rectangle(image, *corners, _colour(rng), -1)
                cv2.rectangle(image, *corners, (25, 25, 25), 1)
                x += thick + 1
    elif kind < 0.75:
        for _ in range(3):
            w, h = (max(4, int(extent * rng.uniform(0.25, 0.6))) for extent in (width, height))
            at = int(rng.integers(0, max(1, width - w))), int(rng.integers(0, max(1, height - h)))
            _paste(image, poster(rng, h, w), *at)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), _shaded(base, 0.55), max(1, round(0.02 * scale)))
    return image


def _paste(image: UInt8, item: UInt8, x: int, y: int) -> None:
    """Copy ``item`` into ``image`` at (x, y), cut at its right and lower edge."""
    part = image[max(y, 0) : max(y, 0) + item.shape[0], max(x, 0) : max(x, 0) + item.shape[1]]
    part[:] = item[: part.shape[0], : part.shape[1]]
