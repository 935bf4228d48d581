"""Pieces of the two photographs that scikit-learn ships: natural images without a network.

A photograph has few regions, four of them for validation: accuracy there may be 10 points off that
on the test regions. It ranks the arms of one seed, which share the regions, and says no more.
"""

import functools

import numpy as np

from lab.data.splits import Pools, Sizes, Split

DEFAULT = Sizes(test=2000, validation=500, train=1000)
BLOCK = (40, 80)  # height and width of a region that serves one part alone
SHARES = (0.4, 0.2, 0.4)  # of the regions: test, validation, train


def photo_patches(seed: int, sizes: Sizes) -> Pools:
    """Grey patches of 8 x 8, the shape of `digits`; the label is the photograph, of two."""
    return _pieces(seed, sizes, (8, 8, 1))


def photo_rows(seed: int, sizes: Sizes) -> Pools:
    """Grey lines of 40 pixels, the shape of `mnist1d`; the label is the photograph, of two."""
    return _pieces(seed, sizes, (1, 40, 1))


def _pieces(seed: int, sizes: Sizes, shape: tuple[int, int, int]) -> Pools:
    """Pieces at random places, both photographs equally often.

    Test, validation and training pieces lie in different regions of the photographs, which the
    seed draws: neighbouring patches are almost the same picture.

    Args:
        seed: Non-negative integer.
        sizes: How many pieces to draw.
        shape: Of a piece, no larger than a region; a height of 1 is left out.
    """
    parts = []
    regions = _regions(seed)
    for stream, (size, default) in enumerate(zip(sizes, DEFAULT, strict=True)):
        n = default if size is None else size
        rng = np.random.default_rng([seed, 100 + stream])
        y = np.arange(n) % len(_photographs())  # type: ignore[arg-type]
        x = np.stack([_piece(label, regions[label][stream], shape, rng) for label in y])  # type: ignore[arg-type]
        parts.append(Split(x[:, 0] if shape[0] == 1 else x, y))
    test, validation, train = parts
    return Pools(train, validation, test, classes=len(_photographs()), default=Sizes())


def _regions(seed: int) -> list[list[np.ndarray]]:
    """For each photograph the corners of the regions of test, validation and training."""
    rng = np.random.default_rng([seed, 99])
    found = []
    for photograph in _photographs():
        rows, columns = (side // block for side, block in zip(photograph.shape, BLOCK, strict=True))
        corners = np.stack(np.meshgrid(np.arange(rows), np.arange(columns)), -1).reshape(-1, 2)
        corners = rng.permutation(corners) * BLOCK
        edges = np.cumsum(np.multiply(SHARES, len(corners)).round().astype(int))[:-1]
        found.append(np.split(corners, edges))
    return found


def _piece(label: int, corners: np.ndarray, shape, rng: np.random.Generator) -> np.ndarray:
    row, column = corners[rng.integers(len(corners))]
    row += rng.integers(BLOCK[0] - shape[0] + 1)
    column += rng.integers(BLOCK[1] - shape[1] + 1)
    return _photographs()[label][row : row + shape[0], column : column + shape[1], None]


@functools.cache
def _photographs() -> tuple[np.ndarray, ...]:
    """Both in grey at half their resolution, 0 to 255, shape (213, 320)."""
    from sklearn.datasets import load_sample_images

    grey = (image.astype("float64").mean(-1) for image in load_sample_images().images)
    halved = (image[: len(image) // 2 * 2] for image in grey)
    return tuple(
        image.reshape(len(image) // 2, 2, image.shape[1] // 2, 2).mean((1, 3)) for image in halved
    )
