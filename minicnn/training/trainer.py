"""The training loop, which can stop after any step and go on from there as if it had not."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import minicnn.functional as F
from minicnn import models, optim, random
from minicnn.autograd import no_grad
from minicnn.backend import Backend
from minicnn.compile import compile
from minicnn.data import Augment, Loader, Splits
from minicnn.nn import Module
from minicnn.optim.schedules import ReduceOnPlateau
from minicnn.recording import inspect
from minicnn.tensor import Tensor
from minicnn.training.checkpoint import CheckpointError, compare_keys
from minicnn.training.config import Config
from minicnn.training.evaluation import evaluate

_EVALUATION_BATCH = 500


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to change."""


class Trainer:
    """A model, its optimizer and data, and how far training has come. Steps are compiled unless ``eager``.

    Attributes:
        history: one row a finished epoch: epoch (from 1), train_loss, train_accuracy, validation_loss,
            validation_accuracy, learning_rate (of its last step), seconds, images_per_second.
        best: the row with the highest validation accuracy; of equals the one with the lowest validation loss.
    """

    def __init__(self, config: Config, splits: Splits, backend: Backend, eager: bool = False) -> None:
        self.config, self.splits, self.backend = config, splits, backend
        random.manual_seed(config.seed)
        self.model: Module = models.create(config.model, len(splits.train.classes), **config.model_options())
        self.model.to(backend)
        self.optimizer = config.make_optimizer(self.model.parameters())
        self.mean, self.std = (splits.mean, splits.std) if config.normalize == "mean-std" else ((0.0,) * 3, (1.0,) * 3)
        self.train_loader = Loader(
            splits.train,
            config.batch_size,
            mean=self.mean,
            std=self.std,
            shuffle=True,
            augment=Augment(config.flip, config.shift, config.padding_mode),  # type: ignore[arg-type]
            seed=config.seed,
            backend=backend,
        )
        self.steps_per_epoch = len(self.train_loader)
        self.schedule = config.make_schedule(self.steps_per_epoch)
        # the norm of the gradient comes to Python, so that a step which clips it cannot be recorded
        self._update = self._eager_update if eager or config.clip_norm else compile(self._eager_update)
        self._forward = self.model if eager else compile(self.model)
        self.history: list[dict[str, float]] = []
        self._batch = 0  # batches done in the epoch under way
        self._loss, self._correct, self._seen = 0.0, 0, 0  # sums over them
        self._seconds = 0.0  # time spent on them

    @property
    def best(self) -> dict[str, float] | None:
        """The best finished epoch."""

        def merit(row: dict[str, float]) -> tuple[float, float]:
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
    def run_epoch(self, on_step: Callable[[int, float, float, float], bool] | None = None) -> bool:
        """Train to the end of the epoch under way, validate, and add a row to ``history``.

        ``on_step(step, loss, accuracy, images_per_second)`` is called after every step; when it returns True, the
        epoch is left at that step. Returns whether the epoch was finished.

        Raises:
            TrainingError: the loss is not finite.
        """
        epoch = len(self.history)
        started, before, seen = time.perf_counter(), self._seconds, self._seen
        self.model.train()
        for images, labels in self.train_loader.epoch(epoch, self._batch):
            self._step(epoch, images, labels)
            elapsed = time.perf_counter() - started
            self._seconds = before + elapsed
            if on_step is not None:
                rate = (self._seen - seen) / elapsed
                stop = on_step(self._batch, self._loss / self._seen, self._correct / self._seen, rate)
                if stop and self._batch < self.steps_per_epoch:
                    return False
        validation = evaluate(self.model, self.loader("validation"), self._forward)
        if not math.isfinite(validation.loss):
            images, _ = next(self.loader("validation").epoch(0))
            raise self._diverged(f"epoch {epoch + 1}: the validation loss is {validation.loss}", images)
        row = {
            "epoch": epoch + 1,
            "train_loss": self._loss / self._seen,
            "train_accuracy": self._correct / self._seen,
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "learning_rate": self.optimizer.lr,
            "seconds": self._seconds,
            "images_per_second": self._seen / self._seconds,
        }
        if isinstance(self.schedule, ReduceOnPlateau):
            self.schedule.observe(validation.loss)
        self.history.append(row)
        self._batch, self._loss, self._correct, self._seen, self._seconds = 0, 0.0, 0, 0, 0.0
        return True

    def loader(self, part: str) -> Loader:
        """Return the batches of "validation" or "test", in order and unchanged."""
        data = getattr(self.splits, part)
        return Loader(data, _EVALUATION_BATCH, mean=self.mean, std=self.std, backend=self.backend)

    def _step(self, epoch: int, images: Any, labels: Any) -> None:
        self.optimizer.lr = self.schedule(epoch * self.steps_per_epoch + self._batch)

        def check(loss: Any) -> None:
            if not math.isfinite(loss.item()):
                where = f"step {self._batch + 1} of epoch {epoch + 1}"
                raise self._diverged(f"{where}: the loss is {loss.item()}", images)

        self._check_loss = check
        loss, logits = self._update(Tensor(images), Tensor(labels))
        value = loss.item()
        self._batch += 1
        self._seen += len(labels)
        self._loss += value * len(labels)
        self._correct += int((logits.argmax(1).data == labels).sum())

    def _eager_update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward and one step of the optimizer; -> loss and logits."""
        config = self.config
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        inspect(loss.data, lambda array: self._check_loss(array))
        self.optimizer.zero_grad()
        loss.backward()
        if config.clip_value:
            optim.clip_grad_value_(self.optimizer.params, config.clip_value)
        if config.clip_norm:
            optim.clip_grad_norm_(self.optimizer.params, config.clip_norm)
        self.optimizer.step()
        return loss, logits

    def _diverged(self, what: str, images: Any) -> TrainingError:
        return TrainingError(
            f"{what}; {self._first_not_finite(images)}; "
            f"lower the learning rate ({self.optimizer.lr:g} now) or clip the gradient"
        )

    def _first_not_finite(self, images: Any) -> str:
        """Say which parameter or which layer's output, in the order of the computation, is the first not finite."""
        found: list[str] = []
        names = {id(module): name for name, module in self.model.named_modules()}

        def note(module: Module, output: Tensor) -> None:
            broken = [n for n, p in module.named_parameters() if not self.backend.kernels.all_finite(p.data)]
            if broken:
                found.append(f"the first layer that is not finite is {names[id(module)]} (its {broken[0]})")
            elif not self.backend.kernels.all_finite(output.data):
                found.append(f"the first layer whose output is not finite is {names[id(module)]}")

        leaves = [module for module in self.model.modules() if not any(True for _ in module.children())]
        ends = [leaf.register_forward_hook(note) for leaf in leaves]
        try:
            with no_grad():
                self.model(Tensor(images))
        finally:
            for end in ends:
                end()
        return found[0] if found else "every layer is finite, the loss itself is not"

    # Saving

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and JSON-ready metadata from which :meth:`restore` goes on bit for bit."""
        arrays = {f"model.{name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        optimizer: dict[str, Any] = {}
        for name, value in self.optimizer.state_dict().items():
            if hasattr(value, "shape"):
                arrays[f"optimizer.{name}"] = Tensor(value).numpy()
            else:
                optimizer[name] = value
        metadata = {
            "kind": "training",
            "config": asdict(self.config),
            "data": self._data_identity(),
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict() if isinstance(self.schedule, ReduceOnPlateau) else {},
            "random": random.get_state(),
            "history": self.history,
            "epoch": {
                "batch": self._batch,
                "loss": self._loss,
                "correct": self._correct,
                "seen": self._seen,
                "seconds": self._seconds,
            },
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
        theirs = {**asdict(stored_config(metadata)), **metadata.get("data", {})}
        ours = {**asdict(self.config), **self._data_identity()}
        free = () if self.config.shaped_by_epochs else ("epochs",)
        differences = [
            f"{name} was {theirs.get(name)}, now {value}"
            for name, value in ours.items()
            if name not in free and theirs.get(name) != value
        ]
        own_arrays, _ = self.state()
        differences += compare_keys(
            {name: a.shape for name, a in own_arrays.items()}, {name: a.shape for name, a in arrays.items()}
        )
        if differences:
            raise ValueError("cannot resume: " + "; ".join(differences))
        try:
            self._take_over(arrays, metadata)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"cannot resume: the state is damaged ({error!r})") from error

    def _take_over(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        self.model.load_state_dict({name[6:]: a for name, a in arrays.items() if name.startswith("model.")})
        slots = {name[10:]: a for name, a in arrays.items() if name.startswith("optimizer.")}
        self.optimizer.load_state_dict({**metadata["optimizer"], **slots})
        if isinstance(self.schedule, ReduceOnPlateau):
            self.schedule.load_state_dict(metadata["schedule"])
        random.set_state(metadata["random"])
        self.history = [dict(row) for row in metadata["history"]]
        under_way = metadata["epoch"]
        self._batch, self._seen = under_way["batch"], under_way["seen"]
        self._loss, self._correct, self._seconds = under_way["loss"], under_way["correct"], under_way["seconds"]

    def weights(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the model's arrays, and what is needed to use them on a picture."""
        arrays = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        metadata = {
            "kind": "weights",
            "model": self.config.model,
            "options": self.config.model_options(),
            "classes": list(self.splits.train.classes),
            "mean": list(self.mean),
            "std": list(self.std),
            "dataset": self.splits.name,
            "split": self.config.split_options(),
            "epoch": len(self.history),
            "validation_accuracy": self.history[-1]["validation_accuracy"] if self.history else None,
        }
        return arrays, metadata

    def _data_identity(self) -> dict[str, Any]:
        """What tells one data set from another: name, sizes, classes."""
        parts = {part: len(getattr(self.splits, part)) for part in ("train", "validation", "test")}
        return {"dataset": self.splits.name, "records": parts, "classes": list(self.splits.train.classes)}


def stored_config(metadata: Mapping[str, Any]) -> Config:
    """Return the configuration of the run whose :meth:`Trainer.state` has this metadata; CheckpointError without."""
    if metadata.get("kind") != "training":
        raise CheckpointError("cannot resume: the file does not hold the state of a run")
    try:
        return Config(**metadata["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot resume: the stored options are not usable: {error}") from error
