"""What the tests share: backends, seeds, the comparison with PyTorch and the profile of hypothesis."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minicnn
from minicnn import Tensor, backend

settings.register_profile(
    "minicnn", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("minicnn")


def pytest_collection_modifyitems(items):
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        try:
            backend.get("cupy")
        except (backend.BackendUnavailable, ImportError) as error:
            for item in wanting:
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers."""
    minicnn.manual_seed(0)


@pytest.fixture(params=["reference", "numpy"])
def backend_name(request):
    """Run the test on the kernels of the specification and on those of the CPU."""
    with backend.use(request.param):
        yield request.param


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture(scope="session")
def torch():
    """PyTorch, the oracle; tests that ask for it are skipped where it is not installed."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its threads and ours would wait for each other
    return torch


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def like_torch(torch):
    """Compare a function of tensors with PyTorch's: values, gradients by a random cotangent, shapes and dtypes."""

    def compare(ours, theirs, *arrays, dtype="float64"):
        tolerance = {"float64": 1e-11, "float32": 1e-5}[dtype]
        mine = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
        other = [torch.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
        output, expected = ours(*mine), theirs(*other)
        cotangent = np.random.default_rng(1).standard_normal(tuple(expected.shape)).astype(dtype)
        assert output.shape == cotangent.shape and output.dtype == dtype
        assert_close(output.numpy(), expected.detach().numpy(), tolerance)
        output.backward(Tensor(cotangent))
        expected.backward(torch.tensor(cotangent))
        for tensor, twin in zip(mine, other, strict=True):
            assert tensor.grad.shape == tensor.shape and tensor.grad.dtype == dtype
            assert_close(tensor.grad.numpy(), twin.grad.numpy(), tolerance)

    return compare


@pytest.fixture(scope="session")
def close():
    return assert_close


def assert_close(found, expected, tolerance):
    """Equal to ``tolerance``, relative to each element and to the largest one; infinities and NaN alike."""
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * finite.max(initial=0.1))


@pytest.fixture
def kernel_calls(monkeypatch):
    """The names of the kernels that NumPy arrays go through, in the order of their calls, on the default backend."""
    calls = []
    real = backend.default()

    class Counting:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(real.kernels, name)

    counting = backend.Backend(real.name, real.xp, Counting())
    monkeypatch.setitem(backend._by_array_type, np.ndarray, counting)
    token = backend._used.set(counting)
    yield calls
    backend._used.reset(token)
