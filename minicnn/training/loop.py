"""The training loop, of any model and any pictures, which can stop after any step and go on as if it had not."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np

from minicnn import random
from minicnn.backend import Backend, to_numpy
from minicnn.compile import Profile, compile
from minicnn.data import Dataset, Loader
from minicnn.data.dataset import check_labels
from minicnn.nn import Module
from minicnn.optim.schedules import ReduceOnPlateau
from minicnn.precision import precision
from minicnn.tensor import Tensor
from minicnn.training.divergence import TrainingError, first_not_finite
from minicnn.training.evaluation import Evaluation, evaluate
from minicnn.training.figures import Epoch, Step
from minicnn.training.history import History
from minicnn.training.options import TrainingOptions
from minicnn.training.preprocessing import Preprocessing
from minicnn.training.update import Update

_EVALUATION_BATCH = 500


class StepInfo(NamedTuple):
    """What a step tells: the epoch under way and its batches so far, both from 1; means over them; the speed."""

    epoch: int
    step: int
    loss: float
    accuracy: float
    images_per_second: float


class Loop:
    """A model, its optimizer and data, and how far training has come. Steps are compiled unless ``eager``.

    Dropout masks are of a generator of its own, seeded by the options: other threads do not draw from it.

    Attributes:
        model: the model that is trained; ``averaged``: the one that is validated and saved, itself or with ``ema``
            another.
        preprocessing: how pictures become the input of the model.
        history: one row a finished epoch, see :class:`~minicnn.training.history.History`.
    """

    def __init__(
        self,
        model: Module,
        options: TrainingOptions,
        train: Dataset,
        validation: Dataset | None,
        preprocessing: Preprocessing,
        backend: Backend,
        eager: bool = False,
        generator: random.Generator | None = None,
        image_size: int = 0,
    ) -> None:
        """Prepare the training of ``model``, which is on ``backend`` and remembers its ``preprocessing``.

        generator: of the dropout masks, where one goes on that has made the model; default: a new one.
        image_size: of what the model sees of larger pictures, their middle or, if the options say so, random crops;
            0 for whole pictures.
        """
        self.model, self.options, self.backend, self.eager = model, options, backend, eager
        self.train_data, self.validation_data, self.preprocessing = train, validation, preprocessing
        self._image_size = image_size
        self.generator = generator or random.Generator(options.seed)
        weights = options.weights_of_classes(train.labels, train.classes)
        self._class_weights = None if weights is None else Tensor(backend.asarray(weights))
        self._update = Update(model, options, eager, self._class_weights)
        self._update.check = self._check
        self.optimizer, self.averaged = self._update.optimizer, self._update.averaged
        self.train_loader = Loader(
            train, options.batch_size, mean=preprocessing.mean, std=preprocessing.std, shuffle=True,
            augment=options.augmentation, image_size=image_size, seed=options.seed, backend=backend,
        )  # fmt: skip
        batches = len(self.train_loader)
        self.batches_per_epoch = min(batches, options.limit_batches) if options.limit_batches else batches
        self.schedule = options.make_schedule(self._steps(self.batches_per_epoch))
        self._forward = self.averaged if eager else compile(self.averaged)
        self.history = History()
        self._under_way = Epoch()
        self._clock = self._begun = time.perf_counter()  # up to where time is counted, and when the last step was begun
        self._latest: tuple[Step, Any]  # the step that was begun last, with its images
        for each in (self.model, self.averaged):
            each.preprocessing = preprocessing

    def prepare(self, epoch: int = 0) -> None:
        """Put the model into training mode for an epoch (from 0)."""
        self.model.train()

    @property
    def best(self) -> dict[str, float] | None:
        """The best finished epoch; without validation the last one."""
        return self.history.best

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ended the run."""
        if len(self.history) >= self.options.epochs:
            return True
        patience = self.options.early_stop
        return bool(patience and self.best and len(self.history) - self.best["epoch"] >= patience)

    @property
    def is_within_epoch(self) -> bool:
        """Whether training stopped before the end of an epoch."""
        return self._under_way.batch > 0

    def run(
        self,
        on_step: Callable[[StepInfo], object] | None = None,
        on_epoch: Callable[[dict[str, float]], object] | None = None,
    ) -> None:
        """Train to the end, or until one of the callbacks returns true.

        Args:
            on_step: called as by :meth:`run_epoch`.
            on_epoch: called with the row of each epoch that is finished.

        Raises:
            TrainingError: as by :meth:`run_epoch`.
        """
        stop = False

        def step(info: StepInfo) -> bool:
            nonlocal stop
            stop = on_step is not None and bool(on_step(info))
            return stop

        while not self.finished and not stop:
            if self.run_epoch(step) and on_epoch is not None:
                stop = bool(on_epoch(self.history[-1])) or stop

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite becomes a TrainingError
    def run_epoch(self, on_step: Callable[[StepInfo], object] | None = None) -> bool:
        """Train to the end of the epoch under way, validate, and add a row to ``history``.

        ``on_step(info)`` is called after every batch, but on a GPU after those behind which the figures are read
        (:class:`~minicnn.training.figures.Figures`); when it returns true, the epoch is left there. Returns whether the
        epoch was finished.

        Raises:
            TrainingError: the loss, or the norm of a gradient that is clipped, is not finite. Weights are as before
                that step; but on a GPU, unless ``eager``, as they are when the figures are read.
        """
        self._catch_up(self._begun)  # an exception may have come between steps and their reading
        epoch, now = len(self.history), self._under_way
        self._clock, before, seen = time.perf_counter(), now.seconds, now.seen
        self.prepare(epoch)
        for batch, (images, labels) in enumerate(self.batches(epoch, now.batch), now.batch):
            self._begin(epoch, batch, images, labels)
            if not self._update.figures.due and batch + 1 < self.batches_per_epoch:
                continue
            self._catch_up()
            if on_step is not None:
                rate = (now.seen - seen) / (now.seconds - before)
                info = StepInfo(epoch + 1, now.batch, now.loss / now.seen, now.correct / now.seen, rate)
                if on_step(info) and now.batch < self.batches_per_epoch:
                    return False
        row = {"epoch": epoch + 1, "train_loss": now.loss / now.seen, "train_accuracy": now.correct / now.seen}
        if self.validation_data is not None:
            validation = self._validate(epoch, self.validation_data)
            row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
            if isinstance(self.schedule, ReduceOnPlateau):
                self.schedule.observe(validation.loss)
        row |= {
            "learning_rate": self.optimizer.lr,
            "seconds": now.seconds,
            "images_per_second": now.seen / now.seconds,
        }
        self.history.append(row)
        self._under_way = Epoch()
        return True

    def _catch_up(self, until: float | None = None) -> None:
        """Add the figures that have not been read, and the time (that of ``until``, or now), to the epoch under way."""
        now, read = self._under_way, self._read()
        for step, loss, correct in read:
            now.batch += 1
            now.seen += step.images
            now.loss += loss * step.images
            now.correct += correct
        if read:
            before, self._clock = self._clock, time.perf_counter() if until is None else until
            now.seconds += self._clock - before

    def _validate(self, epoch: int, data: Dataset) -> Evaluation:
        """Return what the averaged model answers on the validation images."""
        options, held_out = self.options, self.evaluation_loader(data)
        with precision(options.precision):
            found = evaluate(
                self.averaged, held_out, self._forward, options.tta, options.tta_shift, batches=options.limit_batches
            )
            if not math.isfinite(found.loss):
                images, _ = next(held_out.epoch(0))
                what = f"epoch {epoch + 1}: the validation loss is {found.loss}"
                raise self._diverged(what, self.averaged, images)
        return found

    def profile(self, replays: int = 20) -> Profile:
        """Return where the time of a training step goes: steps of a copy, so that the run stays as it is.

        Raises:
            ValueError: the steps are not compiled, or not on the CPU.
        """
        self.prepare(len(self.history))
        update = Update(copy.deepcopy(self.model), self.options, self.eager, self._class_weights)
        images, labels = next(self.batches(0))
        with random.use(random.Generator()):
            return update.profile(Tensor(images), Tensor(labels), replays)

    def evaluation_loader(self, data: Dataset) -> Loader:
        """Return the batches of a data set, in order and unchanged but for the middle of larger pictures."""
        mean, std, seen = self.preprocessing.mean, self.preprocessing.std, data.center_crop(self._image_size)
        return Loader(seen, _EVALUATION_BATCH, mean=mean, std=std, backend=self.backend)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Return the batches of a training epoch (from 0), from number ``start`` on."""
        count, loader = self.batches_per_epoch - start, self.train_loader
        if self.options.overfit_batch:
            return repeat(next(loader.epoch(0, augment=False)), count)
        return islice(loader.epoch(epoch, start, augment=epoch + 1 >= self.options.augment_from), count)

    def learn(self, epoch: int, batch: int, images: Any, labels: Any) -> tuple[float, int]:
        """Train on a batch, the one with this number in this epoch (from 0).

        -> its loss, and how many images it had right: their most probable class is that of the target.

        Raises:
            ValueError: a label outside the classes of the data set.
            TrainingError: the loss, or the norm of a gradient that is clipped, is not finite.
        """
        self._catch_up(self._begun)
        if labels.ndim == 1:
            check_labels(to_numpy(labels), len(self.train_data.classes), "learn")
        self._begin(epoch, batch, images, labels)
        ((_, loss, correct),) = self._read()
        return loss, correct

    def _begin(self, epoch: int, batch: int, images: Any, labels: Any) -> None:
        """Begin the step of a batch; a device may not be done with it."""
        steps = self._steps(self.batches_per_epoch)
        step = epoch * steps + batch // self.options.accumulate
        self.optimizer.lr = self.schedule(step)
        self._latest = Step(epoch, batch, len(labels)), images
        first = batch - batch % self.options.accumulate
        after = min(first + self.options.accumulate, self.batches_per_epoch)
        share = len(labels) / self._images(first, after)
        with random.use(self.generator):
            self._update(Tensor(images), Tensor(labels), share, last=batch + 1 == after)
        self._update.figures.took(self._latest[0])
        self._begun = time.perf_counter()
        lookahead = self.options.lookahead
        number = self.options.epochs * steps
        if lookahead and batch + 1 == after and ((step + 1) % lookahead == 0 or step + 1 == number):
            self._update.look_ahead((step + 1) / number)

    def _read(self) -> list[tuple[Step, float, int]]:
        """Return steps, losses and numbers of right images that have not been read."""
        found = []
        for step, loss, norm, correct in self._update.figures.read():
            self._check("loss", loss, step)
            self._check("norm of the gradient", norm, step)
            found.append((step, loss, correct))
        return found

    def _check(self, name: str, value: float, step: Step | None = None) -> None:
        """Raise TrainingError if a number of a step, one that is done or that under way, is not finite."""
        if math.isfinite(value):
            return
        latest, images = self._latest
        when = f"after step {latest.batch + 1}, when it is read, " if step else ""
        epoch, batch, _ = step or latest
        what = f"step {batch + 1} of epoch {epoch + 1}: the {name} is {value}"
        raise self._diverged(what, self.model, images, when)

    def _steps(self, batches: int) -> int:
        """Return how many steps so many batches make."""
        return -(-batches // self.options.accumulate)

    def _images(self, first: int, after: int) -> int:
        """Return how many images the batches first, …, after - 1 of an epoch have."""
        size, records = self.options.batch_size, len(self.train_data)
        if self.options.overfit_batch:
            return min(size, records) * (after - first)
        return min(size * after, records) - size * first

    def _diverged(self, what: str, model: Module, images: Any, when: str = "") -> TrainingError:
        with random.use(random.Generator()):
            where = first_not_finite(model, Tensor(images))
        return TrainingError(
            f"{what}; {when}{where}; lower the learning rate ({self.optimizer.lr:g} now) or clip the gradient"
        )
