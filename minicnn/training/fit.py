"""Training of any network on arrays, in one call."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from minicnn import backend as backends
from minicnn.data import Augment, Dataset, stratified_split
from minicnn.files import check_writable
from minicnn.nn import Module
from minicnn.text import brief, nearest
from minicnn.training.evaluation import backend_of
from minicnn.training.history import History, Row
from minicnn.training.loop import Loop, StepInfo
from minicnn.training.options import TrainingOptions
from minicnn.training.preprocessing import (
    Preprocessing,
    as_array,
    as_dataset,
    as_images,
    as_labels,
    fitted,
    layout_of,
    pair,
    preprocessing_of,
)
from minicnn.training.progress import Progress
from minicnn.training.start import count_logits
from minicnn.training.tensorboard import Log

_LR = {"sgd": 0.05, "adam": 2e-3, "adamw": 2e-3}  # the highest of the schedule, where none is said


def fit(
    model: Module,
    data: Any,
    validation: Any = 0.1,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: str = "adamw",
    lr: float | None = None,
    schedule: str = "one-cycle",
    layout: str | None = None,
    classes: Sequence[str] | None = None,
    augment: Augment | Mapping[str, Any] | None = None,
    class_weights: str | Sequence[float] | np.ndarray = "",
    early_stop: int = 0,
    on_step: Callable[[StepInfo], object] | None = None,
    on_epoch: Callable[[Row], object] | None = None,
    csv: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    seed: int = 0,
    backend: str | None = None,
    eager: bool = False,
    progress: bool = True,
    **options: Any,
) -> History:
    """Train a network to tell classes of pictures apart; it ends with the weights of its best epoch.

    The best epoch has the highest validation accuracy (of equals the lowest validation loss); without validation it is
    the last. However the call ends, by an exception or Ctrl-C too, the model has the weights of its best epoch so far,
    or, before the first is finished, those of the last step; once training has begun it ends in evaluation mode.

    Pixels become (x - mean) / std per channel, with mean and deviation of the training pictures, x = pixel / 255 of
    uint8. This is kept as ``model.preprocessing``, so that :func:`minicnn.evaluate`, :func:`minicnn.predict` and a
    second ``fit`` do the same to theirs.

    Two calls may run in two threads, on models of their own: each gives the bits that it gives alone.

    Args:
        model: of float32 images (N, C, H, W) to logits (N, K), with at least one parameter to train. All layers are put
            into training mode; parameters without ``requires_grad`` stay as they are.
        data: (x, y), or a Dataset. x: uint8, or floats of any range, (N, H, W), (N, H, W, C) or (N, C, H, W). y:
            integers or booleans (N,), from 0 to K - 1.
        validation: (x, y) or a Dataset likewise; a share of ``data`` (float) or a number of its pictures (int), split
            off by ``seed`` with the share of every class; None or 0 for none.
        epochs: how often every training picture is seen.
        batch_size: pictures of a step.
        optimizer: "adamw", "adam" or "sgd".
        lr: the highest learning rate; default: 0.002, for "sgd" 0.05.
        schedule: "one-cycle", "cosine", "constant", "linear", "step", "multi-step" or "plateau".
        layout: "NHW", "NHWC" or "NCHW"; default: that of an earlier ``fit`` of this model, else as the shape tells: of
            four axes, the one of the second and the last that has at most four elements is the channels.
        classes: K names, in the order of the labels; default: those of the Dataset, of an earlier ``fit``, else "0",
            "1" and so on.
        augment: options of :class:`minicnn.data.Augment`, as ``{"flip": 0.5, "shift": 2}``, or one. Changes of colours
            need floats from 0 to 1.
        class_weights: factors of the classes in the loss of training: "balanced" for n / (K n_k), n_k of the n training
            pictures in class k, or K numbers. Accuracies and the validation loss count all pictures alike.
        early_stop: stop after so many epochs without a best (0: do not).
        on_step: called with a :class:`~minicnn.training.loop.StepInfo` (epoch, step, loss, accuracy,
            images_per_second) after each step, on a GPU after some; a true answer ends the training.
        on_epoch: called with the row of each finished epoch; a true answer ends the training. What a callback raises
            reaches the caller.
        csv: a file for the rows, written anew after each epoch.
        tensorboard: a folder for a log that TensorBoard shows; needs ``pip install "minicnn[tensorboard]"``.
        seed: of the order of the pictures, their changes, dropout and the split. Initial weights are the model's own.
        backend: "numpy" or "cupy", to which the model moves; default: where it is.
        eager: run every operation at once instead of a compiled plan, which keeps what Python decided when it was
            recorded (see :func:`minicnn.compile`): a network that draws by ``random`` or NumPy needs it.
        progress: show a bar, and a line for each epoch.
        options: the other fields of :class:`~minicnn.training.TrainingOptions`, as ``weight_decay``, ``momentum``,
            ``label_smoothing``, ``clip_norm``, ``ema``, ``warmup`` or ``precision``.

    Returns:
        The rows of the epochs; ``history.best`` is the one whose weights the model has.

    Raises:
        TypeError: an unknown option; what is no Module.
        ValueError: data or options that do not fit, said before a weight changes.
        TrainingError: a loss is not finite.

    Example:
        >>> x = np.random.default_rng(0).integers(0, 100, (40, 6, 5), dtype=np.uint8)
        >>> y = np.arange(40) % 2
        >>> x[y == 1] += 100  # the brighter ones
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(30, 2))
        >>> history = minicnn.fit(model, (x, y), epochs=3, batch_size=8, lr=0.05, progress=False)
        >>> history.best["validation_accuracy"], minicnn.predict(model, x[:4]).argmax(1)
        (1.0, array([0, 1, 0, 1]))
    """
    values = {"epochs": epochs, "batch_size": batch_size, "optimizer": optimizer, "schedule": schedule, "seed": seed}
    values |= {"lr": _LR.get(optimizer, 1.0) if lr is None else lr, "early_stop": early_stop}
    values["class_weights"] = class_weights if isinstance(class_weights, str) else np.asarray(class_weights).tolist()
    chosen = _options(values, augment, options)
    before = preprocessing_of("fit", model)
    place = backend_of(model) if backend is None else backends.get(backend)
    chosen = chosen.settled("float32" if eager else place.fastest_precision)
    place.require_precision(chosen.precision)
    whole, layout = _labelled(model, data, layout, classes, before)
    share = _plain(validation)
    if isinstance(share, bool):
        raise ValueError(f"fit: expected validation as (x, y), a share, a number of pictures or None, received {share}")
    splits_off = share is None or isinstance(share, int | float)
    train, held_out = stratified_split(whole, share, chosen.seed) if splits_off and share else (whole, None)
    if before is None:
        preprocessing = fitted("fit", train.images, whole.classes, layout)
    else:
        preprocessing = replace(before, classes=whole.classes, layout=layout)
        preprocessing.check("fit", train.images)
    if not splits_off:
        held_out = as_dataset("fit: validation", validation, preprocessing, layout)
    chosen.check_validation(0 if held_out is None else len(held_out))
    if held_out is not None:
        _check_held_out(model, held_out, train.images.shape[1:], chosen)
    if csv is not None:
        if Path(csv).is_dir():
            raise IsADirectoryError(f"fit: expected csv as a file, received the folder {csv}")
        check_writable(Path(csv).parent)
    with nullcontext() if tensorboard is None else Log(tensorboard) as log:
        model.to(place)
        loop = Loop(model, chosen, train, held_out, preprocessing, place, eager)
        with Progress(chosen.epochs, loop.batches_per_epoch) if progress else nullcontext() as bar:
            _run(loop, bar, log, csv, on_step, on_epoch)
    return loop.history


def _run(
    loop: Loop,
    bar: Progress | None,
    log: Log | None,
    csv: str | os.PathLike[str] | None,
    on_step: Callable[[StepInfo], object] | None,
    on_epoch: Callable[[Row], object] | None,
) -> None:
    """Train to the end, tell everybody, and leave the model with its best weights, even behind an exception."""
    best: dict[str, np.ndarray] = {}

    def step(info: StepInfo) -> object:
        if bar is not None:
            bar.step(*info)
        return on_step is not None and on_step(info)

    def epoch(row: Row) -> object:
        if loop.best is row:
            best.update({name: tensor.numpy().copy() for name, tensor in loop.averaged.state_dict().items()})
        if csv is not None:
            loop.history.to_csv(csv)
        if log is not None:
            log.epoch(row)
        if bar is not None:
            bar.epoch(row, best=loop.best is row)
        return on_epoch is not None and on_epoch(row)

    try:
        loop.run(step, epoch)
        if bar is not None and loop.best and loop.finished and len(loop.history) < loop.options.epochs:
            bar.stopped_early(len(loop.history), int(loop.best["epoch"]))
    finally:
        if best:
            loop.model.load_state_dict(best)
        loop.model.zero_grad()
        loop.model.eval()


def _options(
    values: Mapping[str, Any], augment: Augment | Mapping[str, Any] | None, others: Mapping[str, Any]
) -> TrainingOptions:
    """Return the options of the loop that arguments of :func:`fit` make, each said once."""
    known = {each.name for each in fields(TrainingOptions)}
    changes: Any = augment or {}
    if isinstance(augment, Augment):
        changes = {each.name: getattr(augment, each.name) for each in fields(Augment)}
    for names, kind, which in (
        (changes, "augment", {each.name for each in fields(Augment)}),
        (others, "options", known),
    ):
        if not isinstance(names, Mapping):
            raise TypeError(f"fit: expected {kind} as a mapping or an Augment, received {type(names).__name__}")
        if unknown := [name for name in names if name not in which]:
            raise TypeError(f"fit: unknown {kind}: {brief(unknown[0])}{nearest(unknown[0], which)}")
    if twice := changes.keys() & others.keys():
        raise TypeError(f"fit: expected {', '.join(sorted(twice))} once, received it in augment and beside it")
    given = {name: _plain(value) for name, value in {**changes, **others}.items()}
    made = TrainingOptions(**{name: _plain(value) for name, value in values.items()}, **given)
    chosen = given if not isinstance(augment, Augment) else {name: given[name] for name in others}
    for sentence in made.unused(chosen).values():
        raise ValueError(sentence)
    return made


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _labelled(
    model: Module, data: Any, layout: str | None, classes: Sequence[str] | None, before: Preprocessing | None
) -> tuple[Dataset, str]:
    """Return the pictures with labels that the model has logits for, and the layout of arrays of such pictures."""
    images: Any
    if isinstance(data, Dataset):
        images, y, known = data.images, data.labels, data.classes
        layout = layout or (before.layout if before else "NCHW")
    else:
        x, y = pair("fit", data)
        x = as_array("fit", x)
        layout = layout or (before.layout if before else layout_of("fit", x.shape))
        images = before.images("fit", x, layout) if before else as_images("fit", x, layout)
        known = before.classes if before else ()
    if not images.shape[0]:
        raise ValueError("fit: expected pictures to train on, received none")
    count = count_logits(model, "fit: the model", images.shape[1:])
    if isinstance(classes, str):
        raise ValueError(f"fit: expected classes as a list of names, received the text {brief(classes)}")
    names = known if classes is None else tuple(map(str, classes))
    if classes is None and not isinstance(data, Dataset) and len(known) != count:
        names = tuple(map(str, range(count)))
    if len(names) != count:
        raise ValueError(
            f"fit: expected {count} classes, as the model has logits, received {len(names)}: {brief(names)}"
        )
    if isinstance(data, Dataset):
        return replace(data, classes=names), layout
    return Dataset(images, as_labels("fit", y, len(images), count), names, "arrays"), layout


def _check_held_out(model: Module, held_out: Dataset, shape: tuple[int, ...], options: TrainingOptions) -> None:
    """Raise ValueError for pictures that the model, or the views of ``tta``, would fail on after the first epoch."""
    size = held_out.images.shape[1:]
    if size != shape:
        count_logits(model, "fit: the model", size)
    if options.tta and options.tta_shift >= min(size[1:]):
        raise ValueError(
            f"fit: expected a tta_shift smaller than the pictures, {size[1:]}, received {options.tta_shift}"
        )
