"""``mnist-cnn``: a small convolutional network on MNIST, from IDX files or by torchvision."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stalewise import checks
from stalewise.errors import InputError
from stalewise.workloads.digits import initialise, share_right
from stalewise.workloads.task import Task

MOST_VALUES = 1 << 30
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def mnist_cnn(data: str | None = None, width: int = 8, images: int | None = None) -> Task:
    """Two convolutions of 3 x 3 with pooling and one linear layer, cross-entropy.

    Args:
        data: Folder of the four IDX files, gzipped or not. Without it torchvision downloads them to its cache.
        width: Channels of the first convolution; the second has twice as many. 8 makes 9,098 parameters.
        images: Only the first so many to train on.

    Raises:
        InputError: A file is missing or is not what it should be.
    """
    folder = _download() if data is None else Path(data)
    checks.at_least("workload.options: width", width, 1)
    if images is not None:
        checks.at_least("workload.options: images", images, 1)
    x, y = _images(folder, "train", images)
    held_out = _images(folder, "test")
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * 49, 10),
    )  # fmt: skip
    initialise(model)
    return Task(model, nn.CrossEntropyLoss(), (x, y), held_out, share_right)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Unsigned bytes of an IDX file (two zero bytes, type 8, number of axes, their lengths, values).

    Args:
        path: The file; ``.gz`` beside it will do.
        dimensions: Axes it must have.

    Raises:
        InputError: It is missing, or not such a file.
    """
    zipped = path.with_name(path.name + ".gz")
    name = f"workload.data: {str(path)!r}"
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; workload.data names the folder of MNIST's four IDX files") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{name} cannot be read: {error}") from None
    head = 4 + 4 * dimensions
    if len(content) < head or content[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(f"{name} is not an IDX file of unsigned bytes with {dimensions} axes")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, 4))
    if len(content) - head != int(np.prod(shape, dtype=np.float64)) or len(content) > MOST_VALUES:
        raise InputError(f"{name} is cut short: {len(content) - head} bytes for shape {shape}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _images(folder: Path, part: str, first: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in 0 to 1, shape (count, 1, 28, 28), and labels, shape (count,); all, or the first so many."""
    images, labels = (read_idx(folder / name, axes) for name, axes in zip(FILES[part], (3, 1), strict=True))
    if len(images) != len(labels) or images.shape[1:] != (28, 28) or not len(labels) or labels.max() > 9:
        raise InputError(
            f"workload.data: {str(folder)!r} needs one label 0 to 9 for each {part} image of 28 x 28, got images "
            f"{images.shape} and labels {labels.shape}"
        )
    if first is not None and first > len(images):
        raise InputError(f"workload.options: images must be 1 to {len(images):,}, got {first}")
    images, labels = images[:first], labels[:first]  # before they are floats: all of them take 188 MB
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255.0)).unsqueeze(1)
    return x, torch.from_numpy(labels.astype(np.int64))


def _download() -> Path:
    try:
        from torchvision.datasets import MNIST  # type: ignore[import-not-found]  # noqa: PLC0415  (only to download)
    except ModuleNotFoundError:
        raise InputError(
            "workload.data is missing: name the folder of MNIST's four IDX files, or install torchvision to download it"
        ) from None
    root = Path.home() / ".cache" / "stalewise"
    try:
        MNIST(str(root), download=True)
    except (RuntimeError, OSError) as error:
        raise InputError(f"workload.data is missing, and MNIST cannot be downloaded: {error}") from None
    return root / "MNIST" / "raw"
