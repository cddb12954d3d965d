"""Grad-CAM and feature maps, against PyTorch's hooks and by hand."""

import numpy as np
import pytest

import minicnn.functional as F
from minicnn import Tensor, models, nn
from minicnn.training.explain import check_layer, convolutions, feature_maps, grad_cam


class Twice(nn.Module):
    """Convolutions that are registered in another order than they run in, dropout, and batch norm."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(4, 5, (3, 2))
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5 * 5 * 4, 3)

    def forward(self, input):
        x = self.dropout(F.relu(self.norm(self.first(input))))  # (N, 4, 7, 5)
        return self.head(F.flatten(F.elu(self.last(x)), 1))  # (N, 5, 5, 4) -> (N, 3)


@pytest.fixture
def model(backend_name):
    return Twice().astype("float64")


@pytest.fixture
def images(rng, backend_name):
    return Tensor(rng.standard_normal((4, 3, 15, 11)))


def twin(torch, model, images, layer):
    """The output of a layer and the gradients of the logits of classes 2, 0, 1, 2 with respect to it, by PyTorch."""
    p = {name: torch.tensor(tensor.numpy()) for name, tensor in model.state_dict().items()}
    norm = [p[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    outputs = {}
    x = torch.tensor(images.numpy(), requires_grad=True)
    x = torch.nn.functional.conv2d(x, p["first.weight"], p["first.bias"], stride=2)
    outputs["first"] = x
    x = torch.relu(torch.nn.functional.batch_norm(x, *norm))
    x = torch.nn.functional.conv2d(x, p["last.weight"], p["last.bias"])
    outputs["last"] = x
    logits = torch.nn.functional.elu(x).flatten(1) @ p["head.weight"].T + p["head.bias"]
    (gradient,) = torch.autograd.grad(logits[range(4), [2, 0, 1, 2]].sum(), outputs[layer])
    return outputs[layer].detach().numpy(), gradient.numpy()


@pytest.mark.parametrize(("layer", "named"), [("last", ""), ("last", "last"), ("first", "first")])
def test_grad_cam_is_that_of_the_paper_computed_by_pytorch(torch, model, images, layer, named):
    maps, gradient = twin(torch, model, images, layer)
    expected = np.maximum(np.einsum("nc,nchw->nhw", gradient.mean((2, 3)), maps), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(grad_cam(model, images, [2, 0, 1, 2], named), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(feature_maps(model, images)[layer], maps, rtol=1e-9, atol=1e-12)


def test_the_model_stays_as_it_is(model, images):
    frozen, trained = model.first.weight.requires_grad_(False), model.last.weight
    model.train().norm.eval()
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    grad_cam(model, images, [0, 0, 0, 0])
    with pytest.raises(ValueError, match="classes"):
        grad_cam(model, images, [0, 0, 0, 3])
    assert model.training and model.dropout.training and not model.norm.training
    assert not frozen.requires_grad and trained.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters()) and images.grad is None
    assert not any(module._hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_a_class_that_nothing_speaks_for_is_cold(model, images):
    model.head.weight = nn.Parameter(np.zeros((3, 100)))
    assert not grad_cam(model, images, [0, 1, 2, 0]).any()


def test_a_map_is_hot_where_the_class_is_decided():
    """One channel that counts for class 1: its own picture, for class 0 nothing but cold."""
    conv, picture = nn.Conv2d(3, 1, 1, bias=False), np.zeros((1, 3, 6, 5), np.float32)
    conv.weight = nn.Parameter(np.ones((1, 3, 1, 1), np.float32))
    picture[0, 1, 2, 3], picture[0, 0, 4, 1] = 8, 2
    head = nn.Linear(30, 2, bias=False)
    head.weight = nn.Parameter(np.stack([np.full(30, -1), np.full(30, 1)]).astype(np.float32))
    model = nn.Sequential(conv, nn.Flatten(), head)
    hot = grad_cam(model, Tensor(picture), [1])
    assert hot.shape == (1, 6, 5) and hot[0, 2, 3] == 1 and hot[0, 4, 1] == 0.25 and np.count_nonzero(hot) == 2
    assert not grad_cam(model, Tensor(picture), [0]).any()


def test_layers_come_in_the_order_of_execution(model, images):
    assert convolutions(model, images) == ["first", "last"]
    assert {name: maps.shape for name, maps in feature_maps(model, images).items()} == {
        "first": (4, 4, 7, 5),
        "norm": (4, 4, 7, 5),
        "dropout": (4, 4, 7, 5),
        "last": (4, 5, 5, 4),
    }
    with pytest.raises(ValueError, match="first, norm, dropout, last; received 'lsat'; did you mean 'last'?"):
        check_layer(model, images, "lsat")
    with pytest.raises(ValueError, match=r"an output \(N, C, H, W\): first, norm, dropout, last; received 'head'"):
        grad_cam(model, images, [0, 0, 0, 0], "head")


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2, 3], [0, 1, 2, -1], [[0, 1, 2, 0]]])
def test_classes_that_do_not_fit(model, images, classes):
    with pytest.raises(ValueError, match=r"expected 4 classes in 0\.\.2, received"):
        grad_cam(model, images, classes)


def test_a_model_without_a_convolution_is_refused(rng):
    images = Tensor(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    assert convolutions(model, images) == []
    with pytest.raises(ValueError, match="a model with a convolution, received Sequential"):
        grad_cam(model, images, [0, 1])


def test_a_layer_that_runs_twice_is_shown_at_its_first_run(rng):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, input):
            return F.flatten(self.conv(self.conv(input)), 1)

    model, images = Loop(), Tensor(rng.standard_normal((1, 3, 4, 4)).astype(np.float32))
    np.testing.assert_array_equal(feature_maps(model, images)["conv"], model.conv(images).numpy())
    assert grad_cam(model, images, [7]).shape == (1, 4, 4)


@pytest.mark.parametrize("name", models.names())
def test_every_model_can_be_explained(name, rng):
    model, images = models.create(name), Tensor(rng.standard_normal((1, 3, 32, 32)).astype(np.float32))
    heat = grad_cam(model, images, [3])
    assert heat.ndim == 3 and heat.min() >= 0 and heat.max() in (0, 1)
    first, *_ = convolutions(model, images)
    assert dict(model.named_parameters())[f"{first}.weight"].shape[1] == 3
