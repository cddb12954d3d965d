"""What every kernel keeps on every backend: its declaration, and the values of the reference."""

import numpy as np

from minicnn import backend
from minicnn.backend.kernel import arrays_in, facts
from minicnn.backend.reference import Kernels as reference
from shared import fused_cases, kernel_cases

CASES = kernel_cases.CASES | fused_cases.CASES
NAMES = sorted(name for name in vars(reference) if not name.startswith("_"))
ROUNDINGS = ("bfloat16", "tf32")
PRODUCTS = [name for name in NAMES if name.startswith(("conv2d", "linear")) and not name.endswith("bias")]
DOUBLE = {
    ("clip_norm", 1),
    ("clip_norms", 1),
    ("note_step", 0),
    ("note_step", 3),
}  # kernel and position of what is float64 in either precision
LAYOUTS = {  # how an array of the same elements is made, and how it is then looked at
    "contiguous": (lambda a: a, lambda a: a),
    "Fortran": (lambda a: a.T, lambda a: a.T),
    "strided": (lambda a: a.repeat(2, axis=-1) if a.ndim else a, lambda a: a[..., ::2] if a.ndim else a),
    "reversed": (lambda a: a[::-1] if a.ndim else a, lambda a: a[::-1] if a.ndim else a),
}


def check(kernels, name, dtype, tolerance, layout="contiguous", xp=np, read_only=False):
    """Run the cases of a kernel with floats of ``dtype``, arrays in a layout (a name or, in turn, one of several).

    Results must have the declared shape and dtype and lie in memory of their own, no argument may change but those
    declared, and results and edited arguments must be those of the reference on contiguous NumPy arrays, relative to
    the value and to the largest of the array.
    """
    layouts = [layout] if isinstance(layout, str) else layout
    for number, case in enumerate(CASES[name]):
        where = f"{name}, case {number}"
        expected = run(reference, name, prepare(name, case, dtype))
        arguments = prepare(name, case, dtype, layouts[number % len(layouts)], xp)
        before = [backend.to_numpy(a).copy() for a in arrays_in(arguments)]
        if read_only:
            edited = edited_by(name, arguments)
            for a in arrays_in(arguments):
                a.flags.writeable = any(a is e for e in edited)
        declared = facts(name).outputs(*arguments)
        found = run(kernels, name, arguments, xp)
        keep_to_declaration(name, arguments, before, found, declared, where)
        assert len(found) == len(expected), where
        for x, y in zip(found, expected, strict=True):
            if facts(name).number:
                assert type(x) is type(y) and x == y, where
                continue
            assert x.shape == y.shape and x.dtype == y.dtype, where
            finite = np.abs(y[np.isfinite(y)])
            atol = tolerance * float(finite.max(initial=0)) if y.dtype.kind == "f" else 0
            np.testing.assert_allclose(backend.to_numpy(x), y, rtol=tolerance, atol=atol, err_msg=where)


def keep_to_declaration(name, arguments, before, found, declared, where):
    """Assert what :class:`minicnn.backend.kernel.Facts` says of results and arguments."""
    kernel = facts(name)
    edited = edited_by(name, arguments)
    for a, copy in zip(arrays_in(arguments), before, strict=True):
        if not any(a is e for e in edited):
            np.testing.assert_array_equal(backend.to_numpy(a), copy, f"{where}: an argument changed")
    if kernel.shape is not None:
        assert [(x.shape, x.dtype) for x in found[: len(declared)]] == declared, where
    if not kernel.view and not kernel.writes and not kernel.number:
        inputs = [a for a in arrays_in(arguments) if isinstance(a, np.ndarray)]
        assert not any(np.shares_memory(x, a) for x in found for a in inputs), f"{where}: a result is a view"


def result_of_rounding(bits):
    """The numbers of a result of one of ROUNDINGS: on a GPU it is bits, for the products of that backend alone."""
    shift = {"uint16": 16, "uint32": 0}.get(str(bits.dtype))
    return bits if shift is None else (bits.astype("uint32") << shift).view("float32")


def check_rounded(kernels, name, rounding, tolerance, xp):
    """Run the cases of a product, one of PRODUCTS, of rounded float32; as the reference does it in float64."""
    for number, case in enumerate(CASES[name]):
        arguments, reference_arguments = prepare(name, case, np.float32, xp=xp), prepare(name, case, np.float32)
        arguments[:2] = map(getattr(kernels, rounding), arguments[:2])
        exact = [getattr(reference, rounding)(a).astype(np.float64) for a in reference_arguments[:2]]
        x, y = getattr(kernels, name)(*arguments), getattr(reference, name)(*exact, *reference_arguments[2:])
        assert x.shape == y.shape and x.dtype == np.float32, f"{name}, case {number}"
        atol = tolerance * float(np.abs(y).max(initial=0))
        np.testing.assert_allclose(backend.to_numpy(x), y, rtol=0, atol=atol, err_msg=f"{name}, case {number}")


def run(kernels, name, arguments, xp=np):
    """Call a kernel; return its results, and after them the arguments that it edited."""
    result = getattr(kernels, name)(*arguments)
    edited = edited_by(name, arguments)
    if facts(name).writes and facts(name).shape is None:
        assert result is None, f"{name} edits, and returns nothing"
        return edited
    results = [result_of_rounding(result)] if name in ROUNDINGS else result
    results = list(results) if isinstance(results, tuple | list) else [results]
    assert facts(name).number or all(isinstance(x, xp.ndarray | np.generic) for x in results), name
    return results + edited


def edited_by(name, arguments):
    """The arrays among the arguments that a kernel edits."""
    return list(arrays_in(arguments[i] for i in facts(name).writes))


def prepare(name, case, dtype, layout="contiguous", xp=np):
    """Fresh arguments of a case, on arrays of ``xp``: what is repeated (a stride of 0) is repeated there."""
    make, look = LAYOUTS[layout]

    def prepared(value, kept):
        if isinstance(value, list | tuple):
            return type(value)(prepared(v, kept) for v in value)
        if not isinstance(value, np.ndarray):
            return value
        array = value[tuple(slice(None if stride or not value.size else 1) for stride in value.strides)]
        array = array.astype(dtype) if value.dtype == np.float64 and not kept else array
        there = look(xp.asarray(np.array(make(array), order="C")))
        return there if there.shape == value.shape else xp.broadcast_to(there, value.shape)

    return [prepared(value, (name, i) in DOUBLE) for i, value in enumerate(case)]
