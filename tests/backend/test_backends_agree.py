"""Every kernel of the reference and of the CPU keeps the contract, on a table of awkward cases."""

from types import SimpleNamespace

import numpy as np
import pytest

from minicnn import backend
from minicnn.backend.cpu import Kernels as cpu
from minicnn.backend.cpu import jit
from minicnn.backend.kernel import facts
from minicnn.backend.reference import Kernels as reference
from shared.contract import CASES, LAYOUTS, NAMES, check, prepare, run

TOLERANCES = {"float32": 2e-5, "float64": 1e-11}
OWN = [name for name in NAMES if name in vars(cpu) and name != "tf32" and (name != "bfloat16" or jit.HAS_BFLOAT16)]


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_itself_accepts_every_case(name, dtype):
    """Any layout, no promotion, inputs unmodified: what the comparison below rests on."""
    for layout in LAYOUTS:
        check(reference, name, dtype, TOLERANCES[dtype], layout)
    check(reference, name, dtype, TOLERANCES[dtype], read_only=True)


@pytest.mark.parametrize("layout", [*LAYOUTS, "read-only"])
@pytest.mark.parametrize("name", OWN)
def test_cpu_kernel_agrees_with_reference(name, layout, dtype):
    read_only = layout == "read-only"
    check(cpu, name, dtype, TOLERANCES[dtype], "contiguous" if read_only else layout, read_only=read_only)


@pytest.mark.parametrize("name", OWN)
def test_bits_do_not_depend_on_the_number_of_threads(name, dtype):
    threads, runs = backend.get_num_threads(), []
    try:
        for count in (1, 2):
            backend.set_num_threads(min(count, threads))
            runs.append([run(cpu, name, prepare(name, case, dtype)) for case in CASES[name]])
    finally:
        backend.set_num_threads(threads)
    for one, two in zip(*runs, strict=True):
        assert [a.tobytes() for a in one] == [a.tobytes() for a in two]


def test_every_kernel_has_a_case():
    assert sorted(CASES) == NAMES and all(CASES.values())


BROKEN = {
    "an argument changed": lambda x: np.maximum(x, 0, out=x).copy(),
    "a result is a view": lambda x: x,
    "case 0": lambda x: np.maximum(x, 0).astype("float64"),
    "Not equal to tolerance": lambda x: np.maximum(x, 0) * np.float32(1.0005),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_the_contract_finds(complaint):
    with pytest.raises(AssertionError, match=complaint):
        check(SimpleNamespace(relu=BROKEN[complaint]), "relu", "float32", 2e-5)


def test_work_of_a_convolution():
    """By hand: 5 images of 4 filters of 3 x 2 x 2 on 6 x 7 pixels without padding, in float32."""
    x, weight, gy = np.zeros((5, 3, 6, 7), "f4"), np.zeros((4, 3, 2, 2), "f4"), np.zeros((5, 4, 5, 6), "f4")
    options = (1, 1), (0, 0), (1, 1), 1
    for name, arguments, output in (
        ("conv2d", (x, weight, None, *options), gy),
        ("conv2d_grad_input", (gy, weight, x.shape, *options), x),
        ("conv2d_grad_weight", (gy, x, weight.shape, *options), weight),
    ):
        assert facts(name).flop(arguments, [output]) == 2 * 5 * 4 * 30 * 12
        assert facts(name).bytes(arguments, [output]) == 4 * (630 + 48 + 600)


def test_work_of_other_kernels():
    a, b = np.zeros((3, 4, 5), "f4"), np.zeros((5, 7), "f4")
    assert facts("matmul").flop((a, b), [np.zeros((3, 4, 7), "f4")]) == 2 * 12 * 7 * 5
    assert facts("linear").flop((a, b.T, None), [np.zeros((3, 4, 7), "f4")]) == 2 * 12 * 7 * 5
    assert facts("relu").flop is None and facts("relu").bytes((a,), [a]) == 4 * 2 * 60
    assert facts("sgd_step").bytes((a, a, a, False, 0.1, 0.9, 0.0, 0.0, False), []) == 4 * 5 * 60
    assert facts("reshape").bytes((a, (60,)), [a.reshape(60)]) == 0
    pool, index, scale = np.zeros((100, 3, 8, 8), "u1"), np.zeros(6, int), np.zeros(3, "f4")
    batch = np.zeros((6, 3, 8, 8), "f4")
    moves = (index, index, index)
    assert facts("gather_images").bytes((pool, index, *moves, scale, scale, "reflect"), [batch]) == (
        5 * batch.size + 4 * 6 * 8 + 2 * 3 * 4
    )
