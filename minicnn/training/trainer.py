"""A run: a model by its name, trained on the parts of a data set; saved at any step, and taken up there again."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from minicnn import models, random
from minicnn.backend import Backend
from minicnn.data import Loader, Splits, identity_differences
from minicnn.expected import LARGEST, Number, Only, check, like
from minicnn.optim.schedules import ReduceOnPlateau
from minicnn.precision import precision
from minicnn.tensor import Tensor
from minicnn.text import brief
from minicnn.training import start
from minicnn.training.checkpoint import compare_keys
from minicnn.training.config import Config
from minicnn.training.figures import Epoch
from minicnn.training.history import History
from minicnn.training.loop import Loop
from minicnn.training.preprocessing import Preprocessing
from minicnn.training.state import DATA, RANDOM, refused, stored_config


class Trainer(Loop):
    """A run of a configuration: the model that it names, with the weights and frozen layers that it begins with.

    Attributes:
        config: the options of the run, with its precision settled.
        splits: the data.
    """

    def __init__(self, config: Config, splits: Splits, backend: Backend, eager: bool = False) -> None:
        self.config = config = config.settled("float32" if eager else backend.fastest_precision)
        self.splits = splits
        mean, std = config.scaling(splits)
        generator = random.Generator(config.seed)
        with random.use(generator):
            model = models.create(config.model, len(splits.train.classes), **config.network_options)
        model.to(backend)
        if models.is_own(config.model):
            images, classes = (config.channels, config.image_size, config.image_size), len(splits.train.classes)
            with precision(config.precision):
                count = start.count_logits(model, f"model {config.model}", images)
            if count != classes:
                raise ValueError(
                    f"model {config.model}: expected logits (N, {classes}), as num_classes says, received (N, {count})"
                )
        if config.source is not None:
            start.load_weights(model, config.source, splits.train.classes)
        self._frozen = start.freeze(model, config.freeze)
        self._whitened = None
        if config.whiten:
            looks: dict[str, Any] = {"mean": mean, "std": std, "backend": backend, "image_size": config.crop}
            self._whitened = start.whiten(model, config.model, splits.train, config.whiten, **looks)
        pixels = str(splits.train.images.dtype)
        preprocessing = Preprocessing(mean, std, splits.train.classes, pixels=pixels)
        super().__init__(
            model, config, splits.train, splits.validation, preprocessing, backend, eager, generator, config.crop
        )

    def prepare(self, epoch: int = 0) -> None:
        """Put the model into training mode for an epoch (from 0), but for what is fixed then."""
        super().prepare(epoch)
        for layer in self._frozen:
            layer.eval()
        if self._whitened is not None and self._whitened.bias is not None and self.config.whiten_bias:
            self._whitened.bias.requires_grad_(epoch < self.config.whiten_bias)

    def loader(self, part: str) -> Loader:
        """Return the batches of "validation" or "test", in order and unchanged."""
        return self.evaluation_loader(getattr(self.splits, part))

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
            "scaling": [*self.preprocessing.mean, *self.preprocessing.std],
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict() if isinstance(self.schedule, ReduceOnPlateau) else {},
            "random": self.generator.get_state(),
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
        before, now = metadata.get("scaling"), [*self.preprocessing.mean, *self.preprocessing.std]
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
        row |= {} if self.validation_data is None else {"validation_loss": finite, "validation_accuracy": share}
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
        self.generator.set_state(metadata["random"])
        self.history = History(dict(row) for row in metadata["history"])
        self._under_way = Epoch(**metadata["epoch"])
        self._update.figures.forget()

    def weights(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the model's arrays, and what is needed to use them on a picture."""
        arrays = {name: tensor.numpy() for name, tensor in self.averaged.state_dict().items()}
        metadata = {
            "kind": "weights",
            "model": self.config.model,
            "options": dict(self.config.model_options),
            **self.preprocessing.stored(),
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
