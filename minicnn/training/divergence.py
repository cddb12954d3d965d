"""What to say when training cannot go on."""

from minicnn.autograd import no_grad
from minicnn.nn import Module
from minicnn.tensor import Tensor, kernels_of


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to change."""


def first_not_finite(model: Module, images: Tensor) -> str:
    """Say which parameter or which layer's output, in the order of the computation, is the first not finite."""
    found: list[str] = []
    names = {id(module): name for name, module in model.named_modules()}
    finite = kernels_of(images).all_finite

    def note(module: Module, output: Tensor) -> None:  # of layers without children: one tensor
        broken = [n for n, p in module.named_parameters() if not finite(p._operand)]
        if broken:
            found.append(f"the first layer that is not finite is {names[id(module)]} (its {broken[0]})")
        elif not finite(output._operand):
            found.append(f"the first layer whose output is not finite is {names[id(module)]}")

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    ends = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        with no_grad():
            model(images)
    finally:
        for end in ends:
            end()
    return found[0] if found else "the output of every layer is finite"
