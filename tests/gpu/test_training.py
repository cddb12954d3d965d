"""Training on a GPU: when Python waits for it, and what it copies there."""

import math

import numpy as np
import pytest

from minicnn import backend
from minicnn.data import Dataset, Splits
from minicnn.training import Config, Trainer, TrainingError, evaluate, figures

cupy, syncdetect = pytest.importorskip("cupy"), pytest.importorskip("cupy._core.syncdetect")
pytestmark = pytest.mark.gpu
BATCHES = 8
RUNS = {
    "plain": {"momentum": 0.9, "flip": 0.5, "shift": 2},
    "added up": {"accumulate": 3, "clip_norm": 0.5, "ema": 0.9},
    "mixed": {"mixup": 0.5, "optimizer": "adam", "rotation": 10, "brightness": 0.2, "erasing": 0.5},
    "one batch": {"overfit_batch": True, "lookahead": 2},
    "weighted": {"class_weights": (1.0, 3.0, 0.5), "flip": 0.5},
}


@pytest.fixture(autouse=True)
def gpu():
    with backend.use("cupy") as chosen:
        yield chosen


@pytest.fixture
def events(monkeypatch):
    """What happened so far: "wait" for the device, as CuPy counts them, and "copy" of a NumPy array to it."""
    seen = []

    def noting(word, function, counts=lambda *_: True):
        def noted(*arguments, **options):
            seen.extend([word] * counts(*arguments))
            return function(*arguments, **options)

        return noted

    def is_host(array, *_):
        return isinstance(array, np.ndarray)

    monkeypatch.setattr(syncdetect, "_declare_synchronize", noting("wait", syncdetect._declare_synchronize))
    monkeypatch.setattr(cupy.ndarray, "set", noting("copy", cupy.ndarray.set))
    for name in ("asarray", "array"):
        monkeypatch.setattr(cupy, name, noting("copy", getattr(cupy, name), is_host))
    return seen


@pytest.fixture
def trainer(gpu, monkeypatch):
    """Make a trainer of LeNet, 8 batches of 8 pictures an epoch, whose figures are read after so many steps."""

    def part(n):
        rng = np.random.default_rng(3)
        return Dataset(rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n) % 3, ("a", "b", "c"), "noise")

    def make(most=50, eager=False, **options):
        monkeypatch.setattr(figures, "_MOST", most)
        monkeypatch.setattr(figures, "_SECONDS", math.inf)
        splits = Splits(part(8 * BATCHES), part(40), part(40), "noise", (0.5,) * 3, (0.29,) * 3)
        made = Trainer(Config(**{"batch_size": 8, "lr": 0.01, "epochs": 2, **options}), splits, gpu, eager)
        made._update.figures._enough = made._update.figures.most
        return made

    return make


def rows(run):
    while not run.finished:
        run.run_epoch()
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]


@pytest.mark.parametrize("name", RUNS)
def test_steps_wait_for_nothing_and_copy_the_numbers_of_a_step(trainer, events, name):
    """What batches take is copied before, at once; the numbers are the learning rate and the like."""
    run = trainer(**RUNS[name])
    run.prepare()
    batches = run.batches(0)
    for batch in range(BATCHES):
        images, labels = next(batches)
        if batch == 3:  # kernels are compiled, and launches are recorded
            events.clear()
        run._begin(0, batch, images, labels)
    assert "wait" not in events and events.count("copy") <= BATCHES - 3
    run._catch_up()
    assert events.count("wait") == 1


def test_an_epoch_of_batches_is_copied_at_once(trainer, events):
    run = trainer(**RUNS["mixed"])
    events.clear()
    assert len(list(run.batches(0))) == BATCHES
    assert events == ["copy"]


def test_an_evaluation_waits_at_its_end(trainer, events):
    run = trainer()
    loader = run.loader("test")
    expected = evaluate(run.model, loader, tta=True, shift=2)
    events.clear()
    found = evaluate(run.model, loader, tta=True, shift=2)
    assert events.count("wait") == 3 and events.count("copy") == 1
    assert found.loss == expected.loss


@pytest.mark.parametrize("name", RUNS)
def test_rows_do_not_depend_on_when_they_are_read(trainer, name):
    expected = rows(trainer(eager=True, **RUNS[name]))
    for most in (3, 50):
        assert rows(trainer(most, **RUNS[name])) == expected


def test_stop_and_resume_between_readings(trainer):
    whole, first = rows(trainer(5)), trainer(5)
    first.run_epoch()
    assert not first.run_epoch(lambda info: info.step == 5)
    first._begin(1, 5, *next(first.batches(1, 5)))
    arrays, metadata = first.state()
    assert metadata["epoch"]["batch"] == 6
    second = trainer(50)
    second.restore(arrays, metadata)
    assert rows(second) == whole


def test_the_step_of_a_loss_that_is_not_finite_is_named(trainer):
    for eager, message in ((False, "; after step 8, when it is read, the first layer that is not finite is conv1"),
                           (True, "; the first layer that is not finite is fc3 ")):  # fmt: skip
        run = trainer(eager=eager)
        run.run_epoch()
        batches = run.batches

        def spoiled(epoch, start=0, run=run, batches=batches):
            for number, batch in enumerate(batches(epoch, start), start):
                if number == 6:
                    run.model.fc3.weight.data[...] = np.nan
                yield batch

        run.batches = spoiled
        with pytest.raises(TrainingError, match=f"^step 7 of epoch 2: the loss is nan{message}"):
            run.run_epoch()
