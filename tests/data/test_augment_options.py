"""What the options of an augmentation may be."""

from dataclasses import fields

import pytest

from minicnn.data import Augment

WHOLE = ("shift", "cutout")
WORDS = ("padding_mode", "alternate", "random_resized_crop", "crop_scale", "crop_ratio")
NUMBERS = [f.name for f in fields(Augment) if f.name not in (*WHOLE, *WORDS)]
LARGEST = {"flip": 1, "rotation": 180, "translate": 1, "shear": 80, "zoom": 0.9, "erasing": 1}


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "1", None])
@pytest.mark.parametrize("name", [*NUMBERS, *WHOLE])
def test_impossible_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected a .*number from 0.*, received {value!r}"):
        Augment(**{name: value})


@pytest.mark.parametrize("name, most", LARGEST.items())
def test_numbers_past_their_largest_are_refused(name, most):
    assert getattr(Augment(**{name: most}), name) == most
    with pytest.raises(ValueError, match=rf"^{name}: expected a number from 0 to {most}, received"):
        Augment(**{name: most + 0.01})


@pytest.mark.parametrize(
    "options", [{"shift": 1.5}, {"cutout": 2.0}, {"padding_mode": "edge"}, {"padding_mode": None}, {"alternate": 1}]
)
def test_impossible_augmentations_are_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: expected"):
        Augment(**options)


def test_every_field_says_what_it_does():
    assert all(f.metadata["help"].endswith(".") for f in fields(Augment))
