"""Models for pictures of other sizes and numbers of channels than 3 x 32 x 32, the default."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, optim

NARROW = {"vgg": {"widths": [8, 16, 16]}, "vit": {"depth": 1, "dim": 32}, "speednet": {"widths": [8, 16, 16]}}
SHAPES = [(1, 28), (3, 64), (4, 96), (1, 224)]
TYPICAL = ["lenet", "vgg", "resnet20", "speednet", "vit"]


def make(name, channels, size, **options):
    options = NARROW.get(name, {}) | models.options_for(name, size, channels) | options
    if name == "vit" and size > 32:
        options["patch_size"] = size // 8
    return models.create(name, 5, **options)


def pictures(channels, size, count=2):
    return np.random.default_rng(size).standard_normal((count, channels, size, size)).astype(np.float32)


def losses(model, images, compiled):
    labels = np.arange(len(images)) % 5
    optimizer = optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run = minicnn.compile(step) if compiled else step
    return [run(Tensor(images), Tensor(labels)).item() for _ in range(3)]


@pytest.mark.parametrize("channels, size", SHAPES)
@pytest.mark.parametrize("name", TYPICAL)
def test_compiled_answers_are_the_eager_ones(name, channels, size):
    model, images = make(name, channels, size).eval(), Tensor(pictures(channels, size))
    expected = model(images).numpy()
    assert expected.shape == (2, 5)
    found = minicnn.compile(model)(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 64)])
@pytest.mark.parametrize("name", TYPICAL)
def test_compiled_steps_are_the_eager_ones(name, channels, size):
    found = []
    for compiled in (False, True):
        minicnn.manual_seed(3)
        found.append(losses(make(name, channels, size, **({"dropout": 0} if name == "vgg" else {})),
                            pictures(channels, size, 4), compiled))  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert found[0][2] < found[0][0]


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", models.names())
def test_sizes_above_32_have_the_parameters_of_32(name):
    """Weights of one size are good for another; but a vision transformer has a position for each patch."""
    options = {"patch_size": 12} if name == "vit" else {}
    states = [
        {n: t.shape for n, t in models.create(name, **models.options_for(name, size, 3), **more).state_dict().items()}
        for size, more in ((32, {}), (96, options))
    ]
    if name == "vit":
        assert states[1].pop("patches.weight") == (128, 3, 12, 12)
        del states[0]["patches.weight"]
    assert states[0] == states[1]


@pytest.mark.parametrize("name", models.names())
def test_the_first_convolution_has_the_channels(name):
    for channels in (1, 7):
        model = models.create(name, **models.options_for(name, 32, channels))
        first = next(p for p in model.parameters() if p.ndim == 4)
        assert first.shape[1] == channels
        assert count(model) != count(models.create(name))


def test_parameters_of_28_pixels_by_hand():
    """LeNet: 28 -> 24 -> 12 -> 8 -> 4. VGG: 28 -> 14 -> 7 -> 3."""
    lenet, vgg = models.create("lenet", image_size=28, in_channels=1), models.create("vgg", image_size=28)
    assert lenet.fc1.weight.shape == (128, 16 * 4 * 4) and lenet.conv1.weight.shape == (6, 1, 5, 5)
    assert vgg.classifier.weight.shape == (10, 128 * 3 * 3)
    assert models.create("lenet", image_size=16).fc1.weight.shape == (128, 16)
    assert models.create("vit", image_size=28, patch_size=7, pool="class").positions.shape == (1, 17, 128)


@pytest.mark.parametrize(
    "name, parameters", [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_with_the_stem_for_large_pictures_networks_are_those_of_imagenet(name, parameters):
    """The numbers are torchvision's."""
    assert count(models.create(name, 1000, stem="7x7")) == parameters


def test_the_stem_for_large_pictures_is_pytorchs(torch):
    model, x = models.create("resnet20", stem="7x7", in_channels=2).eval(), pictures(2, 40)
    weight = torch.tensor(model.conv.weight.numpy())
    y = torch.nn.functional.conv2d(torch.tensor(x), weight, stride=2, padding=3) / (1 + 1e-5) ** 0.5
    y = torch.nn.functional.max_pool2d(torch.relu(y), 3, 2, 1)
    expected = model.fc(model.blocks(Tensor(y.numpy())).mean((2, 3))).numpy()
    assert y.shape == (2, 16, 10, 10)
    np.testing.assert_allclose(model(Tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_large_maps_are_averaged_as_by_pytorch(torch):
    """Of LeNet and VGG, before the linear layers."""
    adaptive = torch.nn.functional.adaptive_avg_pool2d
    lenet, x = models.create("lenet", image_size=60).eval(), Tensor(pictures(3, 60))
    y = F.max_pool2d(F.relu(lenet.conv2(F.max_pool2d(F.relu(lenet.conv1(x)), 2))), 2).numpy()
    y = Tensor(adaptive(torch.tensor(y), 5).numpy())
    expected = lenet.fc3(F.relu(lenet.fc2(F.relu(lenet.fc1(F.flatten(y, 1)))))).numpy()
    np.testing.assert_allclose(lenet(x).numpy(), expected, rtol=1e-4, atol=1e-5)
    vgg = models.create("vgg", image_size=60, widths=[8, 8], dropout=0).eval()  # 60 -> 15, averaged to 8
    y = adaptive(torch.tensor(vgg.features[:-1](x).numpy()), 8)
    expected = vgg.classifier(F.flatten(Tensor(y.numpy()), 1)).numpy()
    np.testing.assert_allclose(vgg(x).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("lenet", {"image_size": 15}, "LeNet: expected image_size from 16, received 15"),
        ("lenet", {"in_channels": 0}, "LeNet: expected in_channels as an integer from 1, received 0"),
        ("vgg", {"image_size": 7}, "VGG: expected image_size from 8, as each of the 3 stages halves it, received 7"),
        ("vit", {"image_size": 30}, "ViT: expected patch_size as a divisor of image_size, 30, received 4"),
        ("vit", {"image_size": 28, "patch_size": 7, "stem": "convolutions"},
         "ViT: expected patch_size as a power of 2, for the stem of convolutions, received 7; take stem 'patches'"),
        ("resnet20", {"stem": "5x5"}, "ResNet: expected stem '3x3' or '7x7', received '5x5'"),
        ("speednet", {"in_channels": 1.5}, "SpeedNet: expected in_channels as an integer from 1, received 1.5"),
        ("resnet18", {"image_size": 64}, "model resnet18: .*image_size"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **options)


def test_whitening_fills_the_first_convolution_of_any_channels():
    for channels in (1, 3):
        model = models.create("speednet", in_channels=channels)
        assert model.whitening.weight.shape == (2 * 4 * channels, channels, 2, 2)
