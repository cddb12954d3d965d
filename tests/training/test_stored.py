"""What files hold, checked before it is used; and the state of a run, tampered with in every place."""

import copy
import json
import random
from contextlib import suppress

import numpy as np
import pytest

from minicnn.expected import Maybe, Number, OneOf, Only, check, like
from minicnn.text import brief
from minicnn.training import TrainingError, checkpoint
from minicnn.training.stored import read_json, write_json

COUNT = Number(most=5, whole=True)


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        ({"a": 3}, {"a": COUNT}, None),
        ({"a": 3, "more": None}, {"a": COUNT, "b": Maybe(COUNT)}, None),
        ({"a": [1.5, 2]}, {"a": [Number()]}, None),
        ({"a": [1, "x"]}, {"a": (COUNT, str)}, None),
        ({"a": "PCG64"}, {"a": OneOf(["PCG64"])}, None),
        ({}, {"a": COUNT}, "a is missing"),
        ({"a": {"b": 6}}, {"a": {"b": COUNT}}, "a.b: expected a whole number from 0 to 5, received 6"),
        ({"a": -1}, {"a": COUNT}, "a: expected a whole number from 0 to 5, received -1"),
        ({"a": 4}, {"a": Number(3, 3, whole=True)}, "a: expected 3, received 4"),
        ({"a": 1.0}, {"a": COUNT}, "a: expected a whole number from 0 to 5, received 1.0"),
        ({"a": True}, {"a": COUNT}, "a: expected a whole number from 0 to 5, received True"),
        ({"a": float("nan")}, {"a": Number()}, "a: expected a number from 0, received nan"),
        ({"a": float("inf")}, {"a": Number()}, "a: expected a number from 0, received inf"),
        ({"a": 10**60}, {"a": COUNT}, f"a: expected a whole number from 0 to 5, received {brief(10**60)}"),
        ({"a": [1, 2]}, {"a": [COUNT]}, None),
        ({"a": (1, 2)}, {"a": (COUNT, COUNT)}, None),
        ({"a": {"b": 1}}, {"a": Only(b=COUNT, c=Maybe(COUNT))}, None),
        ({"a": {"d": 1}}, {"a": Only(b=COUNT, c=COUNT)}, "a: expected nothing but b, c, received {'d': 1}"),
        ({"a": [0, "x"]}, {"a": [COUNT]}, "a[1]: expected a whole number from 0 to 5, received 'x'"),
        ({"a": [0]}, {"a": (COUNT, COUNT)}, "a: expected a list of 2, received [0]"),
        ({"a": "MT19937"}, {"a": OneOf(["PCG64"])}, "a: expected PCG64, received 'MT19937'"),
        ({"a": []}, {"a": OneOf(["PCG64"])}, "a: expected PCG64, received []"),
        ({"a": None}, {"a": str}, "a: expected text, received None"),
        (None, {"a": str}, ": expected a mapping, received None"),
    ],
)
def test_a_value_is_as_expected_or_named(value, expected, message):
    if message is None:
        check(value, expected)
        return
    with pytest.raises(ValueError) as caught:
        check(value, expected)
    assert str(caught.value) == message


def test_like_another_value():
    template = {"steps": 0, "lr": 0.1, "groups": [{"nesterov": False, "name": "a"}]}
    check({"steps": 7, "lr": 2, "groups": [{"nesterov": True, "name": "b"}]}, like(template))
    for wrong in ({"steps": 0.5}, {"lr": -1}, {"groups": []}, {"groups": [{"nesterov": 0, "name": "a"}]}):
        with pytest.raises(ValueError):
            check(template | wrong, like(template))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        b'{"a": ' * 50_000,
        b'{"a": NaN}',
        b'{"a": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json is damaged: ") as caught:
        read_json(tmp_path / "a.json", {"a": Maybe(COUNT)})
    assert "\n" not in str(caught.value)


def test_what_is_written_is_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": 3})
    assert read_json(tmp_path / "a.json", {"a": COUNT}) == {"a": 3}
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", {"a": wrong})
    assert read_json(tmp_path / "a.json", {"a": COUNT}) == {"a": 3}


# The state of a run


WRONG = [None, True, -1, 3, 0.5, 10**30, 10**400, float("nan"), float("inf"), 1e308, "x", "", [], [[]], {}, {"a": 1}]


def places(value, path=()):
    """The path of everything inside a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def tampered(metadata, path, wrong):
    """A copy with ``wrong`` at ``path``, or nothing there for KeyError."""
    metadata = copy.deepcopy(metadata)
    inner = metadata
    for key in path[:-1]:
        inner = inner[key]
    if wrong is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = wrong
    return metadata


@pytest.fixture
def stopped(trainer):
    """Make a trainer that has stopped in the middle of its second epoch, and its state as a file holds it."""

    def make(**options):
        one = trainer(**{"schedule": "plateau", "epochs": 3, "ema": 0.9, "optimizer": "adam", **options})
        one.run_epoch()
        assert not one.run_epoch(lambda info: info.step == 2)
        arrays, metadata = one.state()
        return {name: a.copy() for name, a in arrays.items()}, json.loads(json.dumps(metadata))

    return make


def outcome(one, arrays, metadata):
    """Restore and go on: whether the state was accepted; every refusal is one short line and changes nothing."""
    before = one.state()[1]
    try:
        one.restore(arrays, metadata)
    except ValueError as error:
        assert "\n" not in str(error) and str(error).startswith("cannot resume: ") and len(str(error)) < 2000
        assert one.state()[1] == before
        return False
    return True


def test_every_field_of_the_metadata_tampered_with(trainer, stopped):
    arrays, metadata = stopped()
    options = {"schedule": "plateau", "epochs": 3, "ema": 0.9, "optimizer": "adam"}
    one, accepted = trainer(**options), []
    for path in places(metadata):
        for wrong in (KeyError, *WRONG):
            if outcome(one, arrays, tampered(metadata, path, wrong)):
                accepted.append((path, wrong))
                one = trainer(**options)
    free = {  # what may have been another number, and what nothing is made of
        *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate", "best"),
        *("seconds", "images_per_second", "loss", "correct", "lr", "bad_epochs", "state", "inc", "first_key", "keys"),
        *("has_uint32", "uinteger", "epochs"),
    }
    for path, wrong in accepted:
        earlier = path[0] == "config" and wrong is KeyError  # an option that the version which wrote it did not have
        defaults = {"model": "", "normalize": "", "image_size": 0, "channels": 0, "resize": -1}  # of what is settled
        earlier |= path[0] == "config" and path[-1] in defaults and wrong == defaults[path[-1]]
        earlier |= path == ("scaling",) and wrong in (KeyError, None)  # was that of the data
        earlier |= path == ("data", "fingerprints") and wrong in (KeyError, None, {})
        renamed = path[0] == "data" and path[1] != "fingerprints"  # these tell whether it is the same data
        changed = path[0] == "optimizer" or path[-1] in free  # options of the optimizer may be set during a run
        assert earlier or renamed or changed or metadata_value(metadata, path) == wrong, (path, wrong)
    for path, wrong in random.Random(5).sample(accepted, 25):  # and what is accepted trains, or diverges
        other = trainer(**options)
        other.restore(arrays, tampered(metadata, path, wrong))
        with suppress(TrainingError):
            other.run_epoch()
            other.run_epoch()


def metadata_value(metadata, path):
    for key in path:
        metadata = metadata[key]
    return metadata


def test_every_array_tampered_with(trainer, stopped):
    arrays, metadata = stopped()
    one = trainer(schedule="plateau", epochs=3, ema=0.9, optimizer="adam")
    for name, array in arrays.items():
        changed = {
            "missing": {key: a for key, a in arrays.items() if key != name},
            "extra": {**arrays, f"{name}.more": array},
            "float64": {**arrays, name: array.astype(np.float64)},
            "int": {**arrays, name: np.zeros(array.shape, np.int32)},
            "bool": {**arrays, name: np.zeros(array.shape, bool)},
            "shape": {**arrays, name: np.zeros((*array.shape, 2), array.dtype)},
            "empty": {**arrays, name: np.zeros(0, array.dtype)},
        }
        for what, wrong in changed.items():
            assert not outcome(one, wrong, metadata), (name, what)


@pytest.mark.parametrize(
    ("place", "wrong"), [("counts", -1), ("group.0.betas", [3, 0.9]), ("group.0.size", 3), ("group.0.lr", 10**400)]
)
def test_what_the_optimizer_refuses_changes_nothing(trainer, stopped, place, wrong):
    arrays, metadata = stopped()
    if place == "counts":
        arrays["optimizer.counts"][0] = wrong
    else:
        metadata["optimizer"][place] = wrong
    one = trainer(schedule="plateau", epochs=3, ema=0.9, optimizer="adam")
    before = {name: a.copy() for name, a in one.state()[0].items()}
    assert not outcome(one, arrays, metadata)
    after = one.state()[0]
    assert all(array.tobytes() == after[name].tobytes() for name, array in before.items())


def test_a_damaged_file_of_the_state_is_one_line(trainer, stopped, tmp_path):
    """Bytes of the file itself: whatever loads is then restored, or refused."""
    arrays, metadata = stopped()
    checkpoint.save(tmp_path / "last.safetensors", arrays, metadata)
    content, draw = (tmp_path / "last.safetensors").read_bytes(), random.Random(7)
    header = int.from_bytes(content[:8], "little")
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(8 + header)] = draw.randrange(256)
        (tmp_path / "bad.safetensors").write_bytes(damaged)
        try:
            stored = checkpoint.load(tmp_path / "bad.safetensors")
        except checkpoint.CheckpointError as error:
            assert len(str(error).splitlines()) == 1
            continue
        outcome(trainer(schedule="plateau", epochs=3, ema=0.9, optimizer="adam"), stored.arrays, stored.metadata)
