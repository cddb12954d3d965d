"""The training loop, which can stop after any step and go on from there as if it had not."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice, repeat
from typing import Any

import numpy as np

from minicnn import models, random
from minicnn.backend import Backend, to_numpy
from minicnn.compile import Profile, compile
from minicnn.data import Loader, Splits, identity_differences
from minicnn.data.dataset import check_labels
from minicnn.expected import LARGEST, Number, Only, check, like
from minicnn.nn import Module
from minicnn.optim.schedules import ReduceOnPlateau
from minicnn.precision import precision
from minicnn.tensor import Tensor
from minicnn.text import brief
from minicnn.training import start
from minicnn.training.checkpoint import compare_keys
from minicnn.training.config import Config
from minicnn.training.divergence import TrainingError, first_not_finite
from minicnn.training.evaluation import Evaluation, evaluate
from minicnn.training.figures import Epoch, Step
from minicnn.training.state import DATA, RANDOM, refused, stored_config
from minicnn.training.update import Update

_EVALUATION_BATCH = 500


class Trainer:
    """A model, its optimizer and data, and how far training has come. Steps are compiled unless ``eager``.

    Attributes:
        model: the model that is trained; ``averaged``: the one that is validated and saved, itself or with ``ema``
            another.
        history: one row a finished epoch: epoch (from 1), train_loss, train_accuracy, validation_loss and
            validation_accuracy unless there is nothing to validate on, learning_rate (of its last step), seconds,
            images_per_second.
        best: the row with the highest validation accuracy; of equals the one with the lowest validation loss; without
            validation the last.
    """

    def __init__(self, config: Config, splits: Splits, backend: Backend, eager: bool = False) -> None:
        self.config = config = config.settled("float32" if eager else backend.fastest_precision)
        self.splits, self.backend, self.eager = splits, backend, eager
        self.mean, self.std = config.scaling(splits)
        random.manual_seed(config.seed)
        self.model: Module = models.create(config.model, len(splits.train.classes), **config.network_options)
        self.model.to(backend)
        if config.source is not None:
            start.load_weights(self.model, config.source, splits.train.classes)
        self._frozen = start.freeze(self.model, config.freeze)
        looks: dict[str, Any] = {"mean": self.mean, "std": self.std, "backend": backend, "image_size": config.crop}
        self._whitened = (
            start.whiten(self.model, config.model, splits.train, config.whiten, **looks) if config.whiten else None
        )
        self._update = Update(self.model, config, eager)
        self._update.check = self._check
        self.optimizer, self.averaged = self._update.optimizer, self._update.averaged
        self.train_loader = Loader(
            splits.train, config.batch_size, shuffle=True, augment=config.augmentation, seed=config.seed, **looks
        )
        batches = len(self.train_loader)
        self.batches_per_epoch = min(batches, config.limit_batches) if config.limit_batches else batches
        self.schedule = config.make_schedule(self._steps(self.batches_per_epoch))
        self._forward = self.averaged if eager else compile(self.averaged)
        self.history: list[dict[str, float]] = []
        self._under_way = Epoch()
        self._clock = self._begun = time.perf_counter()  # up to where time is counted, and when the last step was begun
        self._latest: tuple[Step, Any]  # the step that was begun last, with its images

    def prepare(self) -> None:
        """Put the model into training mode, but for the stages that are frozen."""
        self.model.train()
        for layer in self._frozen:
            layer.eval()

    @property
    def best(self) -> dict[str, float] | None:
        """The best finished epoch; without validation the last one."""

        def merit(row: dict[str, float]) -> tuple[float, float]:
            if "validation_loss" not in row:
                return row["epoch"], 0.0
            return row["validation_accuracy"], -row["validation_loss"]

        return max(self.history, key=merit, default=None)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ended the run."""
        if len(self.history) >= self.config.epochs:
            return True
        patience = self.config.early_stop
        return bool(patience and self.best and len(self.history) - self.best["epoch"] >= patience)

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite becomes a TrainingError
    def run_epoch(self, on_batch: Callable[[int, float, float, float], bool] | None = None) -> bool:
        """Train to the end of the epoch under way, validate, and add a row to ``history``.

        ``on_batch(batch, loss, accuracy, images_per_second)`` is called after every batch, but on a GPU after those
        behind which the figures are read (:class:`~minicnn.training.figures.Figures`); when it returns True, the epoch
        is left there. Returns whether the epoch was finished.

        Raises:
            TrainingError: the loss, or the norm of a gradient that is clipped, is not finite. Weights are as before
                that step; but on a GPU, unless ``eager``, as they are when the figures are read.
        """
        self._catch_up(self._begun)  # an exception may have come between steps and their reading
        epoch, now = len(self.history), self._under_way
        self._clock, before, seen = time.perf_counter(), now.seconds, now.seen
        self.prepare()
        if self._whitened is not None and self._whitened.bias is not None and self.config.whiten_bias:
            self._whitened.bias.requires_grad_(epoch < self.config.whiten_bias)
        for batch, (images, labels) in enumerate(self.batches(epoch, now.batch), now.batch):
            self._begin(epoch, batch, images, labels)
            if not self._update.figures.due and batch + 1 < self.batches_per_epoch:
                continue
            self._catch_up()
            if on_batch is not None:
                rate = (now.seen - seen) / (now.seconds - before)
                stop = on_batch(now.batch, now.loss / now.seen, now.correct / now.seen, rate)
                if stop and now.batch < self.batches_per_epoch:
                    return False
        row = {"epoch": epoch + 1, "train_loss": now.loss / now.seen, "train_accuracy": now.correct / now.seen}
        if self.splits.validation is not None:
            validation = self._validation(epoch)
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

    def _validation(self, epoch: int) -> Evaluation:
        """Return what the averaged model answers on the validation images."""
        config, held_out = self.config, self.loader("validation")
        with precision(config.precision):
            found = evaluate(
                self.averaged, held_out, self._forward, config.tta, config.tta_shift, batches=config.limit_batches
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
        streams = random.get_state()
        self.prepare()
        update = Update(copy.deepcopy(self.model), self.config, self.eager)
        images, labels = next(self.batches(0))
        try:
            return update.profile(Tensor(images), Tensor(labels), replays)
        finally:
            random.set_state(streams)

    def loader(self, part: str) -> Loader:
        """Return the batches of "validation" or "test", in order and unchanged."""
        data = getattr(self.splits, part).center_crop(self.config.crop)
        return Loader(data, _EVALUATION_BATCH, mean=self.mean, std=self.std, backend=self.backend)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Return the batches of a training epoch (from 0), from number ``start`` on."""
        count, loader = self.batches_per_epoch - start, self.train_loader
        if self.config.overfit_batch:
            return repeat(next(loader.epoch(0, augment=False)), count)
        return islice(loader.epoch(epoch, start, augment=epoch + 1 >= self.config.augment_from), count)

    def learn(self, epoch: int, batch: int, images: Any, labels: Any) -> tuple[float, int]:
        """Train on a batch, the one with this number in this epoch (from 0).

        -> its loss, and how many images it had right: their most probable class is that of the target.

        Raises:
            ValueError: a label outside the classes of the data set.
            TrainingError: the loss, or the norm of a gradient that is clipped, is not finite.
        """
        self._catch_up(self._begun)
        if labels.ndim == 1:
            check_labels(to_numpy(labels), len(self.splits.train.classes), "learn")
        self._begin(epoch, batch, images, labels)
        ((_, loss, correct),) = self._read()
        return loss, correct

    def _begin(self, epoch: int, batch: int, images: Any, labels: Any) -> None:
        """Begin the step of a batch; a device may not be done with it."""
        steps = self._steps(self.batches_per_epoch)
        step = epoch * steps + batch // self.config.accumulate
        self.optimizer.lr = self.schedule(step)
        self._latest = Step(epoch, batch, len(labels)), images
        first = batch - batch % self.config.accumulate
        after = min(first + self.config.accumulate, self.batches_per_epoch)
        share = len(labels) / self._images(first, after)
        self._update(Tensor(images), Tensor(labels), share, last=batch + 1 == after)
        self._update.figures.took(self._latest[0])
        self._begun = time.perf_counter()
        lookahead = self.config.lookahead
        number = self.config.epochs * steps
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
        return -(-batches // self.config.accumulate)

    def _images(self, first: int, after: int) -> int:
        """Return how many images the batches first, …, after - 1 of an epoch have."""
        size, records = self.config.batch_size, len(self.splits.train)
        if self.config.overfit_batch:
            return min(size, records) * (after - first)
        return min(size * after, records) - size * first

    def _diverged(self, what: str, model: Module, images: Any, when: str = "") -> TrainingError:
        return TrainingError(
            f"{what}; {when}{first_not_finite(model, Tensor(images))}; "
            f"lower the learning rate ({self.optimizer.lr:g} now) or clip the gradient"
        )

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and JSON-ready metadata from which :meth:`restore` goes on bit for bit."""
        self._catch_up(self._begun)
        arrays = {f"model.{name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        arrays |= {f"sum.{i}": total.numpy() for i, total in enumerate(self._update.sums)}
        if self.averaged is not self.model:
            arrays |= {f"average.{name}": tensor.numpy() for name, tensor in self.averaged.state_dict().items()}
        optimizer: dict[str, Any] = {}
        for name, value in self.optimizer.state_dict().items():
            if hasattr(value, "shape"):
                arrays[f"optimizer.{name}"] = Tensor(value).numpy()
            else:
                optimizer[name] = value
        metadata = {
            "kind": "training",
            "config": asdict(self.config),
            "data": self.splits.identity,
            "scaling": [*self.mean, *self.std],
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict() if isinstance(self.schedule, ReduceOnPlateau) else {},
            "random": random.get_state(),
            "history": self.history,
            "epoch": asdict(self._under_way),
        }
        return arrays, metadata

    def restore(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned.

        The number of epochs may be another one, where the schedule does not depend on it.

        Raises:
            CheckpointError: the state is not of a training run, or damaged.
            ValueError: it is of one with other options, data or shapes; all differences are listed, and nothing is
                changed.
        """
        config = stored_config(metadata, arrays)
        with refused():
            check(metadata, {"data": DATA})
        theirs, ours = asdict(config), asdict(self.config)
        free = () if self.config.shaped_by_epochs else ("epochs",)
        differences = [
            f"{name} was {brief(theirs.get(name))}, now {brief(value)}"
            for name, value in ours.items()
            if name not in free and theirs.get(name) != value
        ]
        before, now = metadata.get("scaling"), [*self.mean, *self.std]
        if before not in (None, now):  # earlier without, as it was that of the data
            differences.append(f"mean and std were {brief(before)}, now {brief(now)}")
        differences += identity_differences(metadata["data"], self.splits.identity)
        own_arrays, own = self.state()
        differences += compare_keys(
            {name: a.shape for name, a in own_arrays.items()}, {name: a.shape for name, a in arrays.items()}
        )
        differences += [
            f"{name} was {arrays[name].dtype}, now {a.dtype}"
            for name, a in own_arrays.items()
            if name in arrays and arrays[name].dtype != a.dtype
        ]
        if differences:
            raise ValueError("cannot resume: " + "; ".join(differences))
        last = Number(most=self.batches_per_epoch - 1, whole=True)
        with refused():
            check(metadata, {"history": [dict], "epoch": {"batch": last}})
            check(metadata, self._expected(own, len(metadata["history"]), metadata["epoch"]["batch"]))
        self._take_over(arrays, metadata)

    def _expected(self, own: Mapping[str, Any], epochs: int, batch: int) -> dict[str, Any]:
        """Return what :meth:`state` is like after so many epochs and batches, if it gives ``own`` for this trainer."""
        seen, share, finite, time = self._images(0, batch), Number(most=1), Number(-LARGEST), Number(1e-9)
        row = {"train_loss": finite, "train_accuracy": share}
        row |= {} if self.splits.validation is None else {"validation_loss": finite, "validation_accuracy": share}
        row |= {"learning_rate": Number(), "seconds": time, "images_per_second": time}
        nothing = Number(most=0)  # between two epochs
        steps = epochs * self._steps(self.batches_per_epoch) + batch // self.config.accumulate
        schedule = {"lr": Number(), **({"best": finite} if epochs else {})} if own["schedule"] else {}
        return {
            "optimizer": like(own["optimizer"]) | {"lr": Number(), "steps": Number(steps, steps, whole=True)},
            "schedule": like(own["schedule"]) | schedule,
            "random": RANDOM,
            "history": tuple({"epoch": Number(number, number, whole=True), **row} for number in range(1, epochs + 1)),
            "epoch": Only(
                batch=Number(whole=True),
                loss=finite if batch else nothing,
                correct=Number(most=seen, whole=True),
                seen=Number(seen, seen, whole=True),
                seconds=time if batch else nothing,
            ),
        }

    def _take_over(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        parts: dict[str, dict[str, Any]] = {part: {} for part in ("model", "average", "sum", "optimizer")}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = array
        with refused():  # first, as it alone may find something wrong
            self.optimizer.load_state_dict({**metadata["optimizer"], **parts["optimizer"]})
        self.model.load_state_dict(parts["model"])
        if self.averaged is not self.model:
            self.averaged.load_state_dict(parts["average"])
        for i, total in enumerate(self._update.sums):
            total.copy_(self.backend.asarray(parts["sum"][str(i)]))
        if isinstance(self.schedule, ReduceOnPlateau):
            self.schedule.load_state_dict(metadata["schedule"])
        random.set_state(metadata["random"])
        self.history = [dict(row) for row in metadata["history"]]
        self._under_way = Epoch(**metadata["epoch"])
        self._update.figures.forget()

    def weights(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the model's arrays, and what is needed to use them on a picture."""
        arrays = {name: tensor.numpy() for name, tensor in self.averaged.state_dict().items()}
        metadata = {
            "kind": "weights",
            "model": self.config.model,
            "options": dict(self.config.model_options),
            "classes": list(self.splits.train.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "dataset": self.splits.name,
            "origin": self.splits.origin,
            "data": {key: self.splits.identity[key] for key in ("records", "fingerprints")},
            "split": self.config.split_options(),
            "epoch": len(self.history),
            "validation_accuracy": self.history[-1].get("validation_accuracy") if self.history else None,
            "tta": self.config.tta,
            "tta_shift": self.config.tta_shift,
            **{name: getattr(self.config, name) for name in ("image_size", "channels", "resize")},
        }
        return arrays, metadata
