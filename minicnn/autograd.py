"""The tape: which operation made a tensor, and the walk back along it.

An operation on tensors leaves a :class:`Node` with one vector-Jacobian product (vjp) an input: a function from the
gradient of the output to the gradient of that input. :func:`backward` visits the nodes from the last to the first made,
which is a topological order because an operation only ever uses tensors that exist.
"""

import heapq
import itertools
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar

import numpy as np

from minicnn.recording import current

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_order = itertools.count()
_stamps = itertools.count(1)

Vjp = Callable[[Any], Any]


class no_grad:
    """Context manager and decorator: operations inside leave no tape.

    Example:
        >>> w = tensor([1.0, 2.0], requires_grad=True)
        >>> with minicnn.no_grad():
        ...     w *= 3.0
        >>> w
        tensor([3., 6.], dtype=float32, requires_grad=True)
    """

    def __enter__(self) -> None:
        self._token = _recording.set(False)

    def __exit__(self, *exception: object) -> None:
        _recording.reset(self._token)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` so that its operations leave no tape."""

        @wraps(function)
        def without_tape(*args: Any, **kwargs: Any) -> Any:
            with no_grad():  # one a call: a function may recurse, or run in several threads
                return function(*args, **kwargs)

        return without_tape


def is_grad_enabled() -> bool:
    """Return whether operations leave a tape now.

    Example:
        >>> with minicnn.no_grad():
        ...     minicnn.is_grad_enabled()
        False
    """
    return _recording.get()


class Node:
    """One operation on the tape. It keeps the vjps of the inputs that require a gradient, and drops the others.

    Attributes:
        operation: the name of the function that the vjps stand in.
        edges: for each of these inputs the node that made it, or the tensor itself if it is a leaf.
        layer: the name of the module that it is a part of, while a compiled function is recorded.
        versions: how often the inputs and the output were edited when the operation ran; an edit since is an error.
    """

    __slots__ = ("edges", "layer", "operation", "order", "shapes", "versions", "vjps")

    def __init__(self, output: Any, inputs: Sequence[Any], vjps: Sequence[Vjp]) -> None:
        self.order = next(_order)
        recorder = current.get()
        self.layer = "" if recorder is None else recorder.layer
        self.operation = vjps[0].__qualname__.partition(".<")[0].rpartition(".")[2].strip("_")
        wanted = [(t, vjp) for t, vjp in zip(inputs, vjps, strict=True) if t is not None and t.requires_grad]
        self.vjps: list[Vjp] | None = [vjp for _, vjp in wanted]
        self.edges = [t if t._node is None else t._node for t, _ in wanted]
        self.shapes = [t.shape for t, _ in wanted]
        self.versions = [(t._version, t._version.number) for t in (*inputs, output) if t is not None]

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
    """Whether the memory of a tensor was edited in place; ``shared`` by its views.

    Attributes:
        number: another after each edit by an operation.
        is_given: whether somebody else has the array since before the tensor: edits of it are not known.
        latest: of all tensors: another after each edit, and after each array that was lent.
    """

    __slots__ = ("_borrowed", "_stamp", "is_given", "number", "shared")
    latest: ClassVar[int] = 0

    def __init__(self) -> None:
        self.number = self._stamp = 0
        self.shared = self.is_given = False
        self._borrowed: tuple[weakref.ref[Any], ...] = ()

    def __getstate__(self) -> Any:
        """Answer copy and pickle, which copy the memory: nobody has borrowed that."""
        return self.number, self.shared

    def __setstate__(self, state: Any) -> None:
        self.__init__()  # type: ignore[misc]
        self.number, self.shared = state

    def edited(self) -> None:
        """Count an edit."""
        self.number = self._stamp = Version.latest = next(_stamps)

    def lent(self, array: Any) -> Any:
        """Return ``array`` to somebody who may write to it, for as long as it, or a view of it, is kept."""
        if self.is_given or not isinstance(array, np.ndarray):
            return array
        out = [borrowed for ref in self._borrowed if (borrowed := ref()) is not None]
        for borrowed in out:
            if borrowed.base.obj is array:
                return borrowed
        shared: Any = memoryview(array)  # type: ignore[arg-type]  # of Python 3.11, whose arrays have no __buffer__
        array = np.asarray(shared)  # a view of it has it as its base, and not the array behind
        self._borrowed = tuple(map(weakref.ref, [*out, array]))
        self._stamp = Version.latest = next(_stamps)
        return array

    def stamp(self) -> int:
        """Return a number that is the same as before only if the memory has not been edited since."""
        if self.is_given or any(b() is not None for b in self._borrowed):
            return next(_stamps)
        return self._stamp

    def share(self) -> "Version":
        """Return self for a view of the same memory."""
        self.shared = True
        return self


def split_vjps(gradients: Callable[[Any], Sequence[Any]], count: int) -> tuple[Vjp, ...]:
    """Split a function that computes ``count`` gradients at once into vjps that return one each.

    The first vjp that is called computes all gradients and keeps them; each is handed out once.
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
    """Add ``gradient`` times d root / d leaf to ``.grad`` of every leaf that requires one.

    Args:
        root: a tensor that requires a gradient.
        gradient: an array of the shape of root.
        retain_graph: keep the vjps, so that the tape can be walked again.
        add: the kernel that adds two gradients of one tensor.
    """
    if root._node is None:
        root._accumulate(gradient, owned=False)
        return
    gradients: dict[Node, Any] = {root._node: gradient}
    queue = [(-root._node.order, root._node)]
    recorder = current.get()
    while queue:
        node = heapq.heappop(queue)[1]
        if recorder is not None:
            recorder.layer = node.layer
        gy = gradients.pop(node)
        for vjp, edge, shape in zip(node.check(), node.edges, node.shapes, strict=True):
            gx = vjp(gy)
            if gx.shape != shape:
                raise RuntimeError(
                    f"{node.operation}: expected a gradient of shape {shape}, received {gx.shape} from its vjp"
                )
            if not isinstance(edge, Node):
                edge._accumulate(gx, owned=gx is not gy and gx.base is None)
            elif edge not in gradients:
                gradients[edge] = gx
                heapq.heappush(queue, (-edge.order, edge))
            else:
                gradients[edge] = add(gradients[edge], gx)
        if not retain_graph:
            node.vjps = None
    if recorder is not None:
        recorder.layer = ""
