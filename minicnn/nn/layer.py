"""Layer: a module that is made of its options, as those of :mod:`minicnn.nn` are."""

import math
from inspect import signature

from minicnn.nn import init
from minicnn.nn.module import Module, Parameter


class Layer(Module):
    """A module whose attributes hold the arguments it was made with, under their names."""

    def extra_repr(self) -> str:
        """Return the arguments that make such a layer, without those that have their default value."""
        shown = []
        for name, argument in signature(type(self)).parameters.items():
            value = getattr(self, name, argument.default)
            value = value is not None if name in self._parameters else value
            if argument.default is argument.empty:
                shown.append(repr(value))
            elif value != argument.default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)

    def _empty(self, *shape: int) -> Parameter:
        """Return a parameter of undefined elements."""
        return Parameter(init.empty(*shape, operation=type(self).__name__))

    def _add_weight(self, shape: tuple[int, ...], bias: bool) -> None:
        """Add weight and bias (shape[:1], or None) as PyTorch starts them: uniform in +-1 / sqrt(fan_in)."""
        weight = init.kaiming_uniform_(self._empty(*shape), a=math.sqrt(5))
        bound = 1 / math.sqrt(init.fans(weight)[0])
        self.register_parameter("weight", weight)
        self.register_parameter("bias", init.uniform_(self._empty(shape[0]), -bound, bound) if bias else None)

    def _add_scale(self, shape: tuple[int, ...], affine: bool) -> None:
        """Add the weight (ones) and bias (zeros) of a normalisation, or None for both."""
        self.register_parameter("weight", init.ones_(self._empty(*shape)) if affine else None)
        self.register_parameter("bias", init.zeros_(self._empty(*shape)) if affine else None)
