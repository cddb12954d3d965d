"""The tape: which operation made a tensor, and the walk back along it.

An operation on tensors leaves a :class:`Node` with one vector-Jacobian product (vjp) an input: a function from the
gradient of the output to the gradient of that input. :func:`backward` visits the nodes from the last to the first made,
which is a topological order because an operation only ever uses tensors that exist.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_order = itertools.count()

Vjp = Callable[[Any], Any]


class no_grad:
    """Context manager and decorator: operations inside leave no tape."""

    def __enter__(self) -> None:
        self._token = _recording.set(False)

    def __exit__(self, *exception: object) -> None:
        _recording.reset(self._token)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def without_tape(*args: Any, **kwargs: Any) -> Any:
            with no_grad():  # one a call: a function may recurse, or run in several threads
                return function(*args, **kwargs)

        return without_tape


def is_grad_enabled() -> bool:
    """Whether operations leave a tape now."""
    return _recording.get()


class Node:
    """One operation on the tape.

    edges: for each input the node that made it, the tensor itself if it is a leaf that wants a gradient, or None.
    versions: what the inputs and the output were when the operation ran; an edit in place since then is an error.
    """

    __slots__ = ("edges", "operation", "order", "shapes", "versions", "vjps")

    def __init__(self, output: Any, inputs: Sequence[Any], vjps: Sequence[Vjp]) -> None:
        self.order = next(_order)
        self.operation = vjps[0].__qualname__.partition(".<")[0].rpartition(".")[2].strip("_")
        self.vjps: Sequence[Vjp] | None = vjps
        self.edges = [(t if t._node is None else t._node) if t.requires_grad else None for t in inputs]
        self.shapes = [t.shape for t in inputs]
        self.versions = [(t._version, t._version.number) for t in (*inputs, output)]

    def check(self) -> Sequence[Vjp]:
        """Return the vjps, or raise RuntimeError if they no longer hold."""
        if self.vjps is None:
            raise RuntimeError(
                f"backward: the tape of {self.operation} was freed by an earlier backward; "
                "pass retain_graph=True to that call to walk it twice"
            )
        if any(version.number != number for version, number in self.versions):
            raise RuntimeError(
                f"backward: a tensor that {self.operation} used or made was edited in place after it ran; "
                "edit a copy, or call backward first"
            )
        return self.vjps


class Version:
    """How often the memory of a tensor was edited in place; ``shared`` by its views."""

    __slots__ = ("number", "shared")

    def __init__(self) -> None:
        self.number = 0
        self.shared = False

    def share(self) -> "Version":
        """Return self for a view of the same memory."""
        self.shared = True
        return self


def joint(gradients: Callable[[Any], Sequence[Any]], count: int) -> tuple[Vjp, ...]:
    """Split a function that computes ``count`` gradients at once into vjps, each of which returns one of them.

    The first vjp that is called computes all; each result is handed out once.
    """
    results: dict[int, Any] = {}

    def take(index: int, gy: Any) -> Any:
        if index not in results:
            results.update(enumerate(gradients(gy)))
        return results.pop(index)

    def one(index: int) -> Vjp:
        vjp = lambda gy: take(index, gy)  # noqa: E731
        vjp.__qualname__ = gradients.__qualname__
        return vjp

    return tuple(one(index) for index in range(count))


def backward(root: Any, gradient: Any, retain_graph: bool, add: Callable[[Any, Any], Any]) -> None:
    """Add d root / d leaf, times ``gradient``, to ``.grad`` of every leaf that requires one.

    ``add`` is the kernel that sums two gradients of one tensor.
    """
    if root._node is None:
        root._accumulate(gradient, owned=False)
        return
    gradients: dict[Node, Any] = {root._node: gradient}
    queue = [(-root._node.order, root._node)]
    while queue:
        node = heapq.heappop(queue)[1]
        gy = gradients.pop(node)
        for vjp, edge, shape in zip(node.check(), node.edges, node.shapes, strict=True):
            if edge is None:
                continue
            gx = vjp(gy)
            if gx.shape != shape:
                raise RuntimeError(f"{node.operation}: expected a gradient of shape {shape}, its vjp made {gx.shape}")
            if not isinstance(edge, Node):
                edge._accumulate(gx, owned=gx is not gy and gx.base is None)
            elif edge not in gradients:
                gradients[edge] = gx
                heapq.heappush(queue, (-edge.order, edge))
            else:
                gradients[edge] = add(gradients[edge], gx)
        if not retain_graph:
            node.vjps = None


class InPlace:
    """``x += y`` and its kin: arithmetic in place, with tensors or numbers that broadcast to the shape of self.

    Where the result needs no tape, the elements are overwritten, and every view shows them. Where it needs one, the
    memory stays as it is for the operations that used it, and self goes on as the result.

    Raises:
        RuntimeError: self is a leaf that requires a gradient, outside of ``no_grad()``; or the result needs a tape, and
            a view shares the memory of self, which would still show what was there before.
        TypeError: a result of another dtype, which integers have that are divided.
        ValueError: a result of another shape.
    """

    __slots__ = ()

    def __iadd__(self, other: Any) -> Any:
        return _become(self, "+=", lambda x: x + other)

    def __isub__(self, other: Any) -> Any:
        return _become(self, "-=", lambda x: x - other)

    def __imul__(self, other: Any) -> Any:
        return _become(self, "*=", lambda x: x * other)

    def __itruediv__(self, other: Any) -> Any:
        return _become(self, "/=", lambda x: x / other)

    def __ipow__(self, other: Any) -> Any:
        return _become(self, "**=", lambda x: x**other)


def _become(x: Any, operation: str, compute: Callable[[Any], Any]) -> Any:
    if x.requires_grad and x.is_leaf and is_grad_enabled():
        raise RuntimeError(f"{operation}: a leaf that requires a gradient is edited under no_grad() only")
    result = compute(x)
    if result.dtype != x.dtype:
        raise TypeError(f"{operation}: expected a result of {x.dtype}, received {result.dtype}; use astype first")
    if result.shape != x.shape:
        raise ValueError(f"{operation}: expected a result of shape {x.shape}, received {result.shape}")
    if not result.requires_grad:
        return x.copy_(result)
    if x._version.shared:
        raise RuntimeError(
            f"{operation}: the tape cannot follow an edit of memory that a view shares; "
            f"write x = x {operation[:-1]} y instead"
        )
    x.data, x._version, x._node, x.requires_grad = result.data, result._version, result._node, True
    return x
