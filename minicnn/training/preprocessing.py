"""What becomes of pictures before a model sees them, and what its answers are called: known to the model itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicnn.backend import to_numpy
from minicnn.data import Dataset
from minicnn.data.dataset import channel_statistics, check_labels
from minicnn.expected import Maybe, Number, OneOf, check
from minicnn.nn import Module
from minicnn.nn.module import described
from minicnn.tensor import Tensor
from minicnn.text import brief

LAYOUTS = OneOf(("NCHW", "NHWC", "NHW"))
"""The orders of the axes of pictures: N of them, C channels, H rows, W columns."""
PIXELS = OneOf(("uint8", "float32"))
_LARGEST = 1e30  # of mean and deviation: in float32 too
STORED = {
    **{"classes": [str], "mean": [Number(-_LARGEST, _LARGEST)], "std": [Number(1 / _LARGEST, _LARGEST)]},
    **{"layout": Maybe(LAYOUTS), "pixels": Maybe(PIXELS)},  # earlier without: NCHW and uint8
}
"""What is expected of :meth:`Preprocessing.stored`."""
_MOST_CHANNELS = 4  # of pictures whose axes nobody names
_BLOCK = 256  # pictures that are looked at together, so that little memory is needed beside theirs


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become the input of a model: y = (x - mean) / std per channel, where x is pixel / 255 of uint8.

    :func:`minicnn.fit` makes it from the training images and keeps it as ``model.preprocessing``, so that what predicts
    or trains further does the same to the pixels. A copy of the model has it too, and so has a file.

    Attributes:
        mean, std: one number a channel.
        classes: their names, in the order of the logits; () where they are not known.
        layout: of arrays of pictures, "NCHW", "NHWC" or "NHW".
        pixels: "uint8" from 0 to 255, or "float32" of any range.

    Raises:
        ValueError: not as many means as deviations, a deviation of 0, an unknown layout or kind of pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    layout: str = "NCHW"
    pixels: str = "uint8"

    def __post_init__(self) -> None:
        check(self.layout, LAYOUTS, "layout")
        check(self.pixels, PIXELS, "pixels")
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if isinstance(self.classes, str):
            raise ValueError(f"preprocessing: expected classes as names, received the text {brief(self.classes)}")
        object.__setattr__(self, "classes", tuple(self.classes))
        if not len(self.mean) == len(self.std) > 0 or not self._is_storable():
            raise ValueError(
                f"preprocessing: expected one mean and one deviation above 0 for each channel, up to {_LARGEST:g}, "
                f"received mean {brief(self.mean)} and std {brief(self.std)}"
            )

    def _is_storable(self) -> bool:
        """Return whether a file may hold these numbers."""
        small = all(abs(number) <= _LARGEST for number in (*self.mean, *self.std))
        return small and all(number >= 1 / _LARGEST for number in self.std)

    def stored(self) -> dict[str, Any]:
        """Return what a file stores of it, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @staticmethod
    def restored(metadata: Mapping[str, Any]) -> "Preprocessing":
        """Return what :meth:`stored` made; ValueError for something else."""
        check(metadata, STORED)
        words = {name: metadata[name] for name in ("layout", "pixels") if metadata.get(name) is not None}
        mean, std, classes = (tuple(metadata[name]) for name in ("mean", "std", "classes"))
        return Preprocessing(mean, std, classes, **words)

    def images(self, operation: str, x: Any, layout: str | None = None) -> np.ndarray:
        """Return pictures as uint8 or float32 (N, C, H, W), unscaled; ``layout``: of ``x``, if not that of the model.

        Raises:
            ValueError: other axes, channels or pixels than the model's; NaN or infinities.
        """
        found = as_images(operation, x, layout or self.layout)
        self.check(operation, found)
        return found

    def check(self, operation: str, images: Any) -> None:
        """Raise ValueError unless images (N, C, H, W) have the pixels and the channels of the model."""
        if images.dtype != self.pixels:
            remedy = "pixels from 0 to 255 as uint8" if self.pixels == "uint8" else "floats of the same range"
            raise ValueError(
                f"{operation}: expected pixels of {self.pixels}, as the model was trained on, received {images.dtype}; "
                f"pass {remedy}"
            )
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"{operation}: expected pictures of {len(self.mean)} channels, as the model was trained on, received "
                f"{images.shape[1]}, as images (N, C, H, W) of {tuple(images.shape)}; say another layout by layout="
            )

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, C, H, W), as :meth:`images` returns them, as the float32 input of the model."""
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        x = images.astype(np.float32)
        return ((x / 255 if self.pixels == "uint8" else x) - mean) / std


def preprocessing_of(operation: str, model: Module) -> Preprocessing | None:
    """Return the preprocessing of a model, None where it has none, as before it was trained.

    Raises:
        TypeError: it is no Module.
        ValueError: the model has something else by that name.
    """
    if not isinstance(model, Module):
        raise TypeError(f"{operation}: expected a Module, received {described(model)}")
    found = getattr(model, "preprocessing", None)
    if found is not None and not isinstance(found, Preprocessing):
        raise ValueError(
            f"{operation}: expected a Preprocessing as {type(model).__name__}.preprocessing, "
            f"received {described(found)}; rename that attribute"
        )
    return found


def known(operation: str, model: Module, x: Any, layout: str | None) -> tuple[Preprocessing, np.ndarray]:
    """Return how a model is asked, and the pictures ``x`` as images (N, C, H, W) for it.

    A model without preprocessing takes floats as they are, in the layout NCHW if nothing else is said.

    Raises:
        ValueError: pictures that are not for this model.
    """
    found = preprocessing_of(operation, model)
    if found is not None:
        return found, found.images(operation, x, layout)
    images = as_images(operation, x, layout or "NCHW")
    return unscaled(operation, images), images


def unscaled(operation: str, images: Any) -> Preprocessing:
    """Return what leaves images (N, C, H, W) of floats as they are; ValueError for others."""
    if images.dtype == np.uint8:
        raise ValueError(
            f"{operation}: expected floats that are scaled as in training, since minicnn.fit did not train this model, "
            "received uint8; or say how by model.preprocessing = minicnn.training.Preprocessing(mean, std)"
        )
    channels = images.shape[1]
    return Preprocessing((0.0,) * channels, (1.0,) * channels, pixels="float32")


def fitted(operation: str, images: Any, classes: Sequence[str], layout: str) -> Preprocessing:
    """Return the preprocessing that gives training images (N, C, H, W) a mean of 0 and a deviation of 1 per channel."""
    mean, std = channel_statistics(images)
    if not (np.abs([mean, std]) <= _LARGEST).all():
        raise ValueError(f"{operation}: expected pixels of up to {_LARGEST:g}, received larger ones; scale them")
    return Preprocessing(mean, std, tuple(classes), layout, str(images.dtype))


def layout_of(operation: str, shape: Sequence[int]) -> str:
    """Return the layout of an array of pictures of this shape.

    Three axes are NHW. Of four, that with at most four elements has the channels, where only one of the second and the
    last is so short.

    Raises:
        ValueError: it is not clear.
    """
    if len(shape) == 3:
        return "NHW"
    if len(shape) == 4:
        first, last = shape[1] <= _MOST_CHANNELS, shape[3] <= _MOST_CHANNELS
        if first != last:
            return "NCHW" if first else "NHWC"
        raise ValueError(
            f"{operation}: the shape {tuple(shape)} does not tell which axis has the channels; "
            'say layout="NCHW" or layout="NHWC"'
        )
    raise ValueError(
        f"{operation}: expected pictures (N, H, W), (N, H, W, C) or (N, C, H, W), received shape {tuple(shape)}"
    )


def as_images(operation: str, x: Any, layout: str) -> np.ndarray:
    """Return pictures as C-contiguous uint8 or float32 (N, C, H, W), with the memory of ``x`` where it is so already.

    Raises:
        ValueError: other axes than ``layout`` says, no pixels, other numbers than uint8 and floats, NaN or infinities.
    """
    check(layout, LAYOUTS, f"{operation}: layout")
    array = as_array(operation, x)
    if array.ndim != len(layout):
        raise ValueError(
            f"{operation}: expected pictures ({', '.join(layout)}), received shape {array.shape}; "
            "say another layout by layout="
        )
    if not array.size:
        raise ValueError(f"{operation}: expected pictures with pixels, received shape {array.shape}")
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise ValueError(
            f"{operation}: expected pixels of uint8 or floats, received {array.dtype}; "
            "x.astype(np.uint8) if they are from 0 to 255, else x.astype(np.float32)"
        )
    if layout == "NHW":
        array = array[:, None]
    elif layout == "NHWC":
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        array = np.ascontiguousarray(array, np.float32)
    for start in range(0, len(array), _BLOCK):
        finite = np.isfinite(array[start : start + _BLOCK]).all(axis=(1, 2, 3))
        if not finite.all():
            raise ValueError(
                f"{operation}: expected finite pixels, picture {start + int(finite.argmin())} has NaN or infinities"
            )
    return array


def as_labels(operation: str, y: Any, records: int, classes: int | None = None) -> np.ndarray:
    """Return labels as int64 (N,), of ``records`` pictures and so many classes, None where they are not known.

    Raises:
        ValueError: another shape, other numbers than integers or booleans, or a label outside 0..classes-1.
    """
    array = as_array(operation, y)
    if array.ndim == 2 and array.shape[1] == 1:
        raise ValueError(f"{operation}: expected labels (N,), received shape {array.shape}; pass y[:, 0]")
    if array.ndim == 2:
        raise ValueError(
            f"{operation}: expected labels (N,), received shape {array.shape}; of one-hot rows pass y.argmax(1)"
        )
    if array.dtype.kind not in "iub":
        remedy = "y.astype(np.int64)" if array.dtype.kind == "f" else "classes, y = np.unique(y, return_inverse=True)"
        raise ValueError(f"{operation}: expected labels of integers, received {array.dtype}; take {remedy}")
    if array.shape != (records,):
        raise ValueError(f"{operation}: expected as many labels as pictures, {records}, received shape {array.shape}")
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    check_labels(array, classes or np.iinfo(np.int64).max, operation)
    return np.ascontiguousarray(array, np.int64)


def as_array(operation: str, value: Any) -> np.ndarray:
    """Return an array of any library, a tensor or nested lists as a NumPy array."""
    try:
        return to_numpy(value._operand if isinstance(value, Tensor) else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{operation}: expected an array, received {type(value).__name__}: {error}") from error


def pair(operation: str, data: Any) -> tuple[Any, Any]:
    """Return (x, y); ValueError for something else."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f"{operation}: expected a pair (x, y) of pictures and labels, or a Dataset, "
            f"received {type(data).__name__}{f' of {len(data)}' if isinstance(data, tuple | list) else ''}"
        )
    return data[0], data[1]


def as_dataset(operation: str, data: Any, preprocessing: Preprocessing, layout: str | None = None) -> Dataset:
    """Return (x, y), or a Dataset, as the data set of a model that has ``preprocessing``, with its classes.

    Raises:
        ValueError: pictures, labels or classes that are not the model's.
    """
    if isinstance(data, Dataset):
        if data.classes != preprocessing.classes:
            raise ValueError(
                f"{operation}: expected the classes {brief(preprocessing.classes)}, received {brief(data.classes)}"
            )
        preprocessing.check(operation, data.images)
        return data
    x, y = pair(operation, data)
    images = preprocessing.images(operation, x, layout)
    labels = as_labels(operation, y, len(images), len(preprocessing.classes))
    return Dataset(images, labels, preprocessing.classes, "arrays")
