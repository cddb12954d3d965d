"""LeNet: its shape, its summary, and 200 steps of training beside PyTorch, 20 on the kernels of the specification."""

import functools

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, optim

STEPS, BATCH, MOMENTUM = {"reference": 20, "numpy": 200, "cupy": 200}, 16, 0.9
LR = {"float64": 0.01, "float32": 0.002}
TOLERANCE = {"float64": 1e-6, "float32": 1e-3}
SHAPES = {
    "conv1.weight": (6, 3, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (128, 400),
    "fc1.bias": (128,),
    "fc2.weight": (84, 128),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}


def test_parameters_and_output():
    model = models.create("lenet")
    assert {name: p.shape for name, p in model.named_parameters()} == SHAPES
    assert sum(p.numel() for p in model.parameters()) == 65_886
    assert model(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape == (2, 10)
    assert models.create("lenet", num_classes=3)(Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape == (1, 3)


def test_summary(capsys):
    text = minicnn.summary(models.create("lenet"), (3, 32, 32))
    assert capsys.readouterr().out == text + "\n"
    rows = [line.replace(", ", ",").split() for line in text.splitlines() if not line.startswith("-")]
    assert rows[1:] == [  # MACs: conv1 28 * 28 * 6 * 75, conv2 10 * 10 * 16 * 150
        ["conv1", "Conv2d", "(6,28,28)", "456", "352,800"],
        ["conv2", "Conv2d", "(16,10,10)", "2,416", "240,000"],
        ["fc1", "Linear", "(128,)", "51,328", "51,200"],
        ["fc2", "Linear", "(84,)", "10,836", "10,752"],
        ["fc3", "Linear", "(10,)", "850", "840"],
        ["total", "LeNet", "(10,)", "65,886", "655,592"],
    ]


def test_relu_logits():
    minicnn.manual_seed(3)
    plain = models.create("lenet")
    rectified = models.create("lenet", relu_logits=True)
    rectified.load_state_dict(plain.state_dict())
    x = Tensor(np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32))
    logits = plain(x).numpy()
    assert (logits < 0).any()
    np.testing.assert_array_equal(rectified(x).numpy(), np.maximum(logits, 0))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("lenett",), "model: expected one of .* received 'lenett'; did you mean 'lenet'"),
        (("lenet", 0), "model lenet: expected num_classes from 1, received 0"),
    ],
)
def test_unknown_models_and_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create(*arguments)
    with pytest.raises(ValueError, match="model lenet: .*depth"):
        models.create("lenet", depth=3)
    assert "lenet" in models.names()


def test_another_picture_size_is_an_error():
    with pytest.raises(ValueError, match=r"linear: expected an input \(..., 400\), received shape \(1, 576\)"):
        models.create("lenet")(Tensor(np.zeros((1, 3, 36, 36), np.float32)))


@pytest.fixture(scope="module")
def batches():
    """Noisy digits as pictures of 3 x 32 x 32, and the order in which both engines see them.

    In float32 rounding decides now and then which element of a window is the largest, and where the loss falls steeply
    the runs part from there: PyTorch's in float32 from its own in float64 too. Hence the noise, which breaks ties, and
    a small rate in float32; in float64, where runs stay together, the larger rate shows that the network learns.
    """
    digits, rng = load_digits(), np.random.default_rng(0)
    images = [Image.fromarray(image.astype(np.float32)) for image in digits.images]
    images = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images]) / 16
    images = np.stack([images, images.transpose(0, 2, 1), 1 - images], axis=1)
    images += rng.standard_normal(images.shape)
    images = (images - images.mean()) / images.std()
    order = rng.integers(0, len(images), (max(STEPS.values()), BATCH))
    return [(np.ascontiguousarray(images[i]), digits.target[i]) for i in order]


@pytest.fixture(scope="module")
def initial():
    minicnn.manual_seed(1)
    return {name: t.numpy().copy() for name, t in models.create("lenet").state_dict().items()}


@pytest.fixture(scope="module")
def torch_losses(torch, batches, initial):
    class LeNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = torch.nn.Conv2d(3, 6, 5), torch.nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = (torch.nn.Linear(*s) for s in ((400, 128), (128, 84), (84, 10)))

        def forward(self, x):
            for conv in (self.conv1, self.conv2):
                x = torch.max_pool2d(torch.relu(conv(x)), 2)
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))

    def train(dtype):
        model = LeNet().to(getattr(torch, dtype))
        model.load_state_dict({name: torch.tensor(a) for name, a in initial.items()})  # same names, same shapes
        optimizer = torch.optim.SGD(model.parameters(), LR[dtype], MOMENTUM)
        losses = []
        for images, labels in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(torch.tensor(images.astype(dtype))), torch.tensor(labels))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return functools.cache(train)


def train(batches, initial, backend, dtype):
    model = models.create("lenet").astype(dtype)
    model.load_state_dict(initial)
    model.to(backend)
    optimizer = optim.SGD(model.parameters(), LR[dtype], MOMENTUM)
    losses = []
    for images, labels in batches[: STEPS[backend.name]]:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(Tensor(backend.asarray(images.astype(dtype)))), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_follows_torch(batches, initial, torch_losses, backend_name, dtype):
    losses = train(batches, initial, minicnn.backend.get(backend_name), dtype)
    np.testing.assert_allclose(losses, torch_losses(dtype)[: len(losses)], rtol=TOLERANCE[dtype])
    if len(losses) == len(batches):
        assert np.mean(losses[-20:]) < (0.7 if dtype == "float64" else 1) * np.mean(losses[:20])


@pytest.mark.gpu
def test_training_on_the_gpu_follows_torch(batches, initial, torch_losses, dtype):
    with minicnn.backend.use("cupy") as backend:
        losses = train(batches, initial, backend, dtype)
    np.testing.assert_allclose(losses, torch_losses(dtype), rtol=TOLERANCE[dtype])
