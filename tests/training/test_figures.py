"""Figures that are read many steps at a time, as on a GPU: the same rows, and errors that name the step."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import backend, models, nn
from minicnn.nn import Parameter
from minicnn.training import Config, Trainer, TrainingError, checkpoint, figures, loop, lr_finder, update

TIMES = ("seconds", "images_per_second")
RUNS = {
    "plain": {"momentum": 0.9},
    "eager": {"eager": True},
    "added up": {"accumulate": 3, "clip_norm": 0.5, "ema": 0.9},
    "mixed": {"mixup": 0.5, "optimizer": "adam", "clip_norm": 1.0},
    "one batch": {"overfit_batch": True, "lookahead": 2},
}
BATCHES = 9  # an epoch: 65 pictures, 8 a batch


class Root(nn.Module):
    """The gradient of the root of 0 is infinite."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.weight = Parameter(np.zeros(num_classes, np.float32))

    def forward(self, input):
        return input.mean((2, 3)) + self.weight.sqrt()


@pytest.fixture
def near(tiny, splits):
    """Make a trainer whose figures are read after each step."""

    def make(eager=False, **options):
        config = Config(**{"model": "tiny", "batch_size": 8, "epochs": 2, "lr": 0.02, **options})
        return Trainer(config, splits, backend.get("numpy"), eager)

    return make


@pytest.fixture
def far(near, monkeypatch):
    """Make a trainer whose figures are read after so many steps, however long they take, as if it were on a device."""

    def make(most, **options):
        monkeypatch.setattr(figures, "_MOST", most)
        monkeypatch.setattr(figures, "_SECONDS", math.inf)
        monkeypatch.setattr(update, "Figures", lambda *_: figures.Figures(SimpleNamespace(is_device=True, xp=np)))
        made = near(**options)
        made._update.figures._enough = most
        return made

    return make


def rows(run):
    while not run.finished:
        run.run_epoch()
    return [{name: value for name, value in row.items() if name not in TIMES} for row in run.history]


@pytest.mark.parametrize("name", RUNS)
def test_rows_do_not_depend_on_when_they_are_read(near, far, name):
    expected = rows(near(**RUNS[name]))
    for most in (1, 4, 50):
        assert rows(far(most, **RUNS[name])) == expected


@pytest.mark.parametrize("most", [2, 4, 50])
def test_progress_is_told_what_is_done(far, most):
    told, expected = [], [*range(most, BATCHES, most), BATCHES]
    far(most).run_epoch(lambda info: told.append((info.step, info.loss)))
    assert [batch for batch, _ in told] == expected
    every = {}
    far(1).run_epoch(lambda info: every.update({info.step: info.loss}))
    assert told == [(batch, every[batch]) for batch in expected]


def test_a_state_between_two_readings_is_that_of_the_steps_that_are_done(far, tmp_path):
    whole = rows(far(50))
    first = far(50)
    first.run_epoch()
    first._begin(1, 0, *next(first.batches(1)))
    first._begin(1, 1, *next(first.batches(1, 1)))
    checkpoint.save(tmp_path / "last.safetensors", *first.state())
    stored, second = checkpoint.load(tmp_path / "last.safetensors"), far(4)
    assert stored.metadata["epoch"]["batch"] == 2 and stored.metadata["epoch"]["seen"] == 16
    second.restore(stored.arrays, stored.metadata)
    assert rows(second) == whole


def interrupt(run):
    """Interrupt an epoch behind its fifth step, before figures are read."""
    batches = run.batches

    def interrupted(epoch, start=0):
        yield from [*batches(epoch, start)][:5]
        raise KeyboardInterrupt

    run.batches = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.run_epoch()
    run.batches = batches


def test_an_epoch_goes_on_behind_an_interrupt(far):
    whole = rows(far(50))
    run = far(50)
    interrupt(run)
    assert rows(run) == whole


def test_the_time_behind_an_interrupt_is_nobodys(far, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    run = far(50)
    begin = run._begin

    def second_long(*arguments):
        now[0] += 1
        begin(*arguments)

    run._begin = second_long
    interrupt(run)
    now[0] += 3600
    run.run_epoch()
    assert run.history[0]["seconds"] == BATCHES


def test_a_state_that_is_taken_over_knows_no_steps_before_it(far):
    whole, run = rows(far(50)), far(50)
    arrays, metadata = copy.deepcopy(run.state())
    interrupt(run)
    run.restore(arrays, metadata)
    assert rows(run) == whole


def test_as_many_steps_are_read_at_once_as_a_tenth_of_a_second_holds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(figures, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    device = SimpleNamespace(is_device=True, xp=np)
    for seconds, expected in ((0.03, [1, 4, 4, 4]), (1e-4, [1, 50, 50]), (0.5, [1, 1, 1])):
        noted, read = figures.Figures(device), []
        while len(read) < len(expected):
            now[0] += seconds
            noted.took(figures.Step(0, 0, 1))
            if noted.due:
                read.append(len(noted.read()))
        assert read == expected
    assert figures.Figures(device, eager=True).most == figures.Figures(backend.get("numpy")).most == 1


@pytest.mark.parametrize("label", [-1, 99])
def test_labels_that_were_edited(near, label):
    run = near()
    images, labels = next(run.batches(0))
    wrong = labels.copy()
    wrong[3] = label
    with pytest.raises(ValueError, match=f"learn: .*{label}"):
        run.learn(0, 0, images, wrong)
    run.splits.train.labels[5] = label
    with pytest.raises(ValueError, match=f"Dataset .*{label}"):
        run.run_epoch()


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("most", [2, 4, 50])
def test_the_step_of_a_loss_that_is_not_finite_is_named(far, most, eager):
    run = far(most, eager=eager)
    run.run_epoch()
    batches = run.batches

    def spoiled(epoch, start=0):
        for number, (images, labels) in enumerate(batches(epoch, start), start):
            yield images * np.float32(np.nan if number >= 6 else 1), labels

    run.batches = spoiled
    read = {2: 8, 4: 8, 50: BATCHES}[most]
    message = (
        rf"^step 7 of epoch 2: the loss is nan; after step {read}, when it is read, the first layer that is not fin"
    )
    with pytest.raises(TrainingError, match=message):
        run.run_epoch()
    assert len(run.history) == 1 and run.optimizer.steps == BATCHES + read


@pytest.mark.parametrize("most", [2, 50])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_the_step_of_a_norm_that_is_not_finite_is_named(far, monkeypatch, most):
    monkeypatch.setitem(models._MODELS, "root", Root)
    message = r"^step 1 of epoch 1: the norm of the gradient is (inf|nan); after step "
    with pytest.raises(TrainingError, match=message + str(min(most, BATCHES))):
        far(most, model="root", clip_norm=1.0).run_epoch()


def test_a_single_step_is_read_at_once(far):
    found = []
    for most in (1, 50):
        run = far(most)
        run.prepare()
        found.append([run.learn(0, batch, *next(run.batches(0, batch))) for batch in range(3)])
    assert found[0] == found[1]
    assert lr_finder.learning_rate_test(far(50), 5) == lr_finder.learning_rate_test(far(1), 5)
