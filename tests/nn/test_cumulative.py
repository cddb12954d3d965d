"""Batch norm with momentum None: running statistics that are the mean over all batches, as PyTorch's."""

import numpy as np
import pytest

import minicnn
from minicnn import Tensor, nn

BATCHES = [7 + np.random.default_rng(i).standard_normal((9, 3, 4, 5)).astype(np.float32) for i in range(5)]


def norm_2d(package=nn):
    return package.BatchNorm2d(3, momentum=None)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_mean_over_all_batches_agrees_with_torch(compiled, torch, close):
    ours, theirs = norm_2d(), norm_2d(torch.nn)
    run = minicnn.compile(lambda x: ours(x * 1.0)) if compiled else ours
    for count, x in enumerate(BATCHES, 1):
        found, expected = run(Tensor(x)), theirs(torch.tensor(x))
        close(found.numpy(), expected.detach().numpy(), 1e-5)
        for name, statistic in theirs.state_dict().items():
            close(ours.state_dict()[name].numpy(), statistic.numpy(), 1e-5)
        assert ours.num_batches_tracked.item() == count
    np.testing.assert_allclose(ours.running_mean.numpy(), np.mean(BATCHES, (0, 1, 3, 4)), rtol=1e-5)
    ours.eval(), theirs.eval()
    close(ours(Tensor(x)).numpy(), theirs(torch.tensor(x)).detach().numpy(), 1e-5)
    assert ours.num_batches_tracked.item() == count


@pytest.mark.parametrize("compiled", [False, True])
def test_saved_and_resumed_it_goes_on(compiled):
    def run(layer, batches):
        step = minicnn.compile(lambda x: layer(x * 1.0)) if compiled else layer
        for x in batches:
            step(Tensor(x))
        return {name: t.numpy().copy() for name, t in layer.state_dict().items()}

    whole = run(norm_2d(), BATCHES)
    second = norm_2d()
    second.load_state_dict(run(norm_2d(), BATCHES[:2]))
    for name, array in run(second, BATCHES[2:]).items():
        np.testing.assert_array_equal(array, whole[name])


def test_the_state_of_torch_is_taken_over(torch):
    theirs, ours = norm_2d(torch.nn), norm_2d()
    for x in BATCHES[:3]:
        theirs(torch.tensor(x))
    state = {name: t.numpy() for name, t in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    ours(Tensor(BATCHES[3])), theirs(torch.tensor(BATCHES[3]))
    np.testing.assert_allclose(ours.running_var.numpy(), theirs.running_var.numpy(), rtol=1e-5)


def test_a_batch_that_is_refused_is_not_counted():
    layer = nn.BatchNorm1d(3, momentum=None)
    with pytest.raises(ValueError, match="more than one value a channel"):
        layer(Tensor(np.ones((1, 3), np.float32)))
    assert layer.num_batches_tracked.item() == 0


def test_other_layers_have_no_count():
    assert nn.BatchNorm2d(3).num_batches_tracked is None
    layer = nn.BatchNorm2d(3, momentum=None, track_running_stats=False)
    assert layer(Tensor(BATCHES[0])).shape == BATCHES[0].shape and list(layer.state_dict()) == ["weight", "bias"]
    layer = nn.BatchNorm2d(3)
    layer.momentum = None
    with pytest.raises(ValueError, match="BatchNorm2d: momentum became None; make the layer with momentum=None"):
        layer(Tensor(BATCHES[0]))


def test_the_count_keeps_its_dtype():
    layer = norm_2d().astype("float64")
    assert layer.num_batches_tracked.dtype == "int64" and layer.running_mean.dtype == "float64"
