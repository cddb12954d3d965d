"""Functions that join and repeat tensors."""

from collections.abc import Sequence

from minicnn.shapes import axes
from minicnn.tensor import Tensor, kernels_of


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along an existing axis; all other axes must agree.

    Example:
        >>> minicnn.cat([tensor([1, 2]), tensor([3])])
        tensor([1, 2, 3], dtype=int64)
    """
    if not tensors:
        raise ValueError("cat: expected at least one tensor, received none")
    (axis,) = axes("cat", tensors[0].ndim, dim)
    first = tensors[0].shape
    for t in tensors[1:]:
        others = (*t.shape[:axis], first[axis], *t.shape[axis + 1 :])
        if t.ndim != len(first) or others != first or t.dtype != tensors[0].dtype:
            raise ValueError(
                f"cat: expected {first} and {tensors[0].dtype} in all axes but {axis}, received {t.shape} and {t.dtype}"
            )
    k = kernels_of(tensors[0])
    vjps, start = [], 0
    for t in tensors:
        stop = start + t.shape[axis]
        index = (slice(None),) * axis + (slice(start, stop),)
        vjps.append(lambda gy, index=index: k.getitem(gy, index))
        start = stop
    return Tensor.from_op(k.concatenate([t._operand for t in tensors], axis), tensors, vjps)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis.

    Example:
        >>> minicnn.stack([tensor([1, 2]), tensor([3, 4])], dim=1)
        tensor([[1, 3],
                [2, 4]], dtype=int64)
    """
    if not tensors:
        raise ValueError("stack: expected at least one tensor, received none")
    (axis,) = axes("stack", tensors[0].ndim + 1, dim)
    return cat([t.reshape(*t.shape[:axis], 1, *t.shape[axis:]) for t in tensors], axis)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat a tensor along new axes and those of length 1, without a copy.

    Example:
        >>> F.broadcast_to(tensor([1, 2]), (2, 2))
        tensor([[1, 2],
                [1, 2]], dtype=int64)
    """
    before, after = input.shape, tuple(shape)
    stretched = zip(reversed(before), reversed(after), strict=False)
    if len(before) > len(after) or any(m not in (1, n) for m, n in stretched):
        raise ValueError(f"broadcast_to: expected a shape that {before} broadcasts to, received {after}")
    k = kernels_of(input)
    return Tensor.from_op(
        k.broadcast_to(input._operand, after), (input,), (lambda gy: k.sum_to(gy, before),), view_of=input
    )
