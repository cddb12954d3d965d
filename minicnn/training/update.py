"""One batch's part in training: forward, loss, backward, and what comes when a step's gradients are complete."""

import copy
from collections.abc import Callable
from typing import Any

import minicnn.functional as F
from minicnn import optim
from minicnn.compile import Profile, compile
from minicnn.compile.plan import MachinePlan
from minicnn.nn import Module
from minicnn.precision import precision
from minicnn.recording import check_on_replay, per_replay
from minicnn.tensor import Tensor, kernels_of
from minicnn.training.figures import Figures
from minicnn.training.options import TrainingOptions


class Update:
    """A training step of ``model`` in ``options.precision``, compiled unless ``eager``.

    With ``options.accumulate`` k, the gradients of k batches are added up before a step, each weighted with the batch's
    share of their images: the step is that of one large batch, but for what layers see of it (batch norm), and but for
    class weights, by whose sum over its own labels the loss of each batch is divided.

    With ``options.ema`` d, parameters and running statistics are averaged: after step t, average += (1 - d_t)
    (value - average), d_t = min(d, (1 + t) / (10 + t)), so that the first weights are soon forgotten.

    With ``options.lookahead`` k, the average is the slow weights of Lookahead (Zhang et al., 2019): every k steps and
    after the last, at the share s of the run, average += (1 - d^k s^3) (value - average) with
    d = ``options.lookahead_decay``, and the weights and statistics become the average.

    With ``class_weights`` (K,), the loss is that of :func:`minicnn.functional.cross_entropy` with them.

    Attributes:
        optimizer: its learning rate is the caller's affair.
        averaged: the model with the averaged weights; without averaging ``model`` itself.
        sums: the gradients added up so far, one a parameter of the optimizer; [] without accumulation.
        figures: of the steps, which are read from there.
        check: called with the name and the value of the loss and (if it is clipped) of the gradient's norm before
            weights change, where Python reads the figures of each step; it may raise.
    """

    def __init__(
        self, model: Module, options: TrainingOptions, eager: bool = False, class_weights: Tensor | None = None
    ) -> None:
        self.model, self.options, self._class_weights = model, options, class_weights
        self.optimizer = options.make_optimizer(model.parameters())
        self.figures = Figures(self.optimizer.params[0].backend, eager)
        self.check: Callable[[str, float], None] = lambda name, value: None
        self.averaged = copy.deepcopy(model) if options.ema or options.lookahead else model
        added = self.optimizer.params if options.accumulate > 1 else []
        self.sums = [Tensor(p.backend.xp.zeros_like(p._operand)) for p in added]
        wrap: Callable[[Any], Any] = (lambda function: function) if eager else compile
        self._whole, self._part, self._last = wrap(self._step), wrap(self._part_of_step), wrap(self._end_of_step)

    def __call__(self, images: Tensor, labels: Tensor, share: float = 1.0, last: bool = True) -> None:
        """Learn from a batch, whose figures are noted.

        images: (N, C, H, W); labels: int64 (N,) from 0 to K - 1, which is not checked, or float32 (N, K) of
        probabilities. ``share``: of the batch in the images of its step; ``last``: whether the step is complete with
        it. Both are for accumulation.
        """
        function = self._whole if self.options.accumulate == 1 else self._last if last else self._part
        with precision(self.options.precision):
            function(*self._inputs(images, labels, share))

    def look_ahead(self, share: float) -> None:
        """Move the average towards the weights, and these to it; ``share``: of the run that is done."""
        decay = self.options.lookahead_decay**self.options.lookahead * share**3
        self._average(1 - decay)
        values = self.model.state_dict()
        for name, average in self.averaged.state_dict().items():
            values[name]._edit(kernels_of(average).copy_into, average._operand)

    def _inputs(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, ...]:
        if self.options.accumulate == 1:
            return images, labels
        return images, labels, Tensor(images.backend.xp.full((), share, dtype=images.dtype))

    def profile(self, images: Tensor, labels: Tensor, replays: int = 20) -> Profile:
        """Learn from a batch again and again, and return where the time goes; see :meth:`minicnn.compile.Plan.profile`.

        Raises:
            ValueError: there is no plan: the steps are eager, or on CuPy arrays.
        """
        self(images, labels)
        step = self._whole if self.options.accumulate == 1 else self._last
        plan = next(reversed(getattr(step, "plans", {}).values()), None)
        if not isinstance(plan, MachinePlan):
            raise ValueError("profile: expected compiled steps on the CPU, received eager ones or others")
        return plan.profile(*self._inputs(images, labels, 1.0), replays=replays)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[()]:
        loss, logits = self._backward(images, labels)
        self.figures.note(loss, self._finish(), logits, labels)
        return ()

    def _part_of_step(self, images: Tensor, labels: Tensor, share: Tensor) -> tuple[()]:
        loss, logits = self._add_up(images, labels, share)
        self.figures.note(loss, None, logits, labels)
        return ()

    def _add_up(self, images: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = self._backward(images, labels, share)
        for total, p in zip(self.sums, self.optimizer.params, strict=True):
            if p.grad is not None:
                total._edit(kernels_of(total).accumulate, p.grad._operand)
        return loss, logits

    def _end_of_step(self, images: Tensor, labels: Tensor, share: Tensor) -> tuple[()]:
        loss, logits = self._add_up(images, labels, share)
        for total, p in zip(self.sums, self.optimizer.params, strict=True):
            p.grad = None if p.grad is None else total
        self.figures.note(loss, self._finish(), logits, labels)
        for total in self.sums:
            total.copy_(0.0)
        return ()

    def _backward(self, images: Tensor, labels: Tensor, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        smoothing = self.options.label_smoothing
        loss = F.cross_entropy(logits, labels, self._class_weights, label_smoothing=smoothing, check_labels=False)
        self._look("loss", loss)
        self.optimizer.zero_grad()
        loss.backward(share)
        return loss, logits

    def _look(self, name: str, value: Tensor) -> None:
        """Check a number of one element here, where Python does not leave it for later."""
        if self.figures.most == 1:
            check_on_replay(value._operand, lambda array: self.check(name, array.item()))

    def _finish(self) -> Tensor | None:
        """Clip the gradient, take the step, average; -> the norm before, where that is clipped."""
        options, norm = self.options, None
        if options.clip_value:
            optim.clip_grad_value_(self.optimizer.params, options.clip_value)
        if options.clip_norm:
            norm = optim.clip_grad_norm_(self.optimizer.params, options.clip_norm)
            self._look("norm of the gradient", norm)
        self.optimizer.step()
        if options.ema:
            self._average(
                per_replay(lambda: 1 - min(options.ema, (1 + self.optimizer.steps) / (10 + self.optimizer.steps)))
            )
        return norm

    def _average(self, weight: float) -> None:
        """Add ``weight`` (value - average) to the average of every parameter and running statistic."""
        values = self.model.state_dict()
        for name, average in self.averaged.state_dict().items():
            if average.dtype.kind == "f":
                average._edit(kernels_of(average).lerp_into, values[name]._operand, weight)
            else:  # a count
                average._edit(kernels_of(average).copy_into, values[name]._operand)
