"""The vision transformer: its shapes and sizes, what its definition implies, and its options."""

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, models, nn, optim

SMALL = {"depth": 2, "dim": 16, "heads": 2}


def pictures(count=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_parameters(pool):
    """By hand: patches, positions, six blocks, norm and head."""
    d, tokens = 128, 64 + (pool == "class")
    block = 2 * 2 * d + 4 * (d * d + d) + (d * 2 * d + 2 * d) + (2 * d * d + d)
    expected = (48 * d + d) + tokens * d + (pool == "class") * d + 6 * block + 2 * d + (10 * d + 10)
    assert sum(p.numel() for p in models.create("vit", pool=pool).parameters()) == expected
    assert expected == {"mean": 810_890, "class": 811_146}[pool]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "class"},
        {"patch_size": 8, "mlp_ratio": 1.5, "dropout": 0.1},
        {"stem": "convolutions"},
        {"stem": "convolutions", "patch_size": 16, "pool": "class"},
    ],
)
def test_it_learns_a_batch(options):
    model, images, labels = models.create("vit", 4, **SMALL, **options), Tensor(pictures(8)), np.arange(8) % 4
    optimizer, losses = optim.Adam(model.parameters(), 0.003), []
    for _ in range(25):
        logits = model(images)
        assert logits.shape == (8, 4)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.numpy().any() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("patch_size", [1, 2, 4, 32])
def test_stem_of_convolutions(patch_size):
    """A pixel for each patch; the channels double up to those of a token, and start with at least one."""
    stem = models.create("vit", **SMALL, stem="convolutions", patch_size=patch_size).patches
    widths = [layer.out_channels for layer in stem if isinstance(layer, nn.Conv2d)]
    assert widths == {1: [16], 2: [16, 16], 4: [8, 16, 16], 32: [1, 2, 4, 8, 16, 16]}[patch_size]
    assert stem(Tensor(pictures())).shape == (3, 16, 32 // patch_size, 32 // patch_size)


def shuffled(images, order):
    """The 64 patches of 4 x 4 in another order."""
    patches = images.reshape(-1, 3, 8, 4, 8, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 64, 3, 4, 4)[:, order]
    return patches.reshape(-1, 8, 8, 3, 4, 4).transpose(0, 3, 1, 4, 2, 5).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_positions_alone_tell_the_order_of_the_patches(pool):
    model, images = models.create("vit", pool=pool, **SMALL), pictures().astype(np.float64)
    model.astype(np.float64).eval()
    other = shuffled(images, np.random.default_rng(1).permutation(64))
    assert not np.allclose(model(Tensor(other)).numpy(), model(Tensor(images)).numpy(), rtol=1e-6)
    with minicnn.no_grad():
        model.positions.copy_(np.zeros(()))
    np.testing.assert_allclose(model(Tensor(other)).numpy(), model(Tensor(images)).numpy(), rtol=1e-11, atol=1e-13)


def test_initial_weights():
    state = {n: t.numpy() for n, t in models.create("vit", pool="class").state_dict().items()}
    assert state["positions"].std() == pytest.approx(0.02, rel=0.05)
    assert state["class_token"].std() == pytest.approx(0.02, rel=0.3)
    bound = np.sqrt(6 / (128 + 256))  # Xavier's
    assert 0.99 * bound < np.abs(state["blocks.0.mlp.0.weight"]).max() <= np.float32(bound)
    assert not any(a.any() for n, a in state.items() if n.endswith("bias"))


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_compiled_is_eager(pool):
    runs = []
    for compiled in (False, True):
        minicnn.manual_seed(1)
        model = models.create("vit", pool=pool, dropout=0.1, **SMALL)
        optimizer = optim.SGD(model.parameters(), 0.01, 0.9)

        def step(images, labels, model=model, optimizer=optimizer):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = minicnn.compile(step) if compiled else step
        losses = [run(Tensor(pictures(11, i)), Tensor(np.arange(11) % 10)).item() for i in range(4)]
        predict = minicnn.compile(model) if compiled else model.eval()
        runs.append((losses, predict(Tensor(pictures(5))).numpy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], rtol=1e-3, atol=1e-4)


def test_summary_counts_the_products_of_attention():
    text = minicnn.summary(models.create("vit"), (3, 32, 32))
    rows = [line.replace(", ", ",").split() for line in text.splitlines() if not line.startswith("-")]
    kinds = [row[1] for row in rows]
    d, tokens = 128, 64
    attention = 4 * tokens * d * d + 2 * tokens * tokens * d  # four projections; q k^T and its product with v
    assert rows[kinds.index("MultiheadAttention")][1:] == [
        "MultiheadAttention", "(64,128)", f"{4 * d * d + 4 * d:,}", f"{attention:,}"
    ]  # fmt: skip
    assert kinds.count("MultiheadAttention") == 6
    total = tokens * 48 * d + 6 * (attention + 4 * tokens * d * d) + 10 * d
    assert rows[-1] == ["total", "ViT", "(10,)", "810,890", f"{total:,}"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 0}, "ViT: expected depth as an integer from 1, received 0"),
        ({"dim": 64.0}, "ViT: expected dim as an integer from 1, received 64.0"),
        ({"heads": 3}, "ViT: expected dim as a multiple of heads, received 128 and 3"),
        ({"patch_size": 5}, "ViT: expected patch_size as a divisor of image_size, 32, received 5"),
        ({"mlp_ratio": 0}, "ViT: expected mlp_ratio as a number from 1 / dim, received 0"),
        ({"mlp_ratio": "2"}, "ViT: expected mlp_ratio as a number .* received '2'"),
        ({"dropout": 1}, r"ViT: expected dropout as a number in \[0, 1\), received 1"),
        ({"dropout": [0.1]}, r"ViT: expected dropout as a number .* received \[0.1\]"),
        ({"pool": "max"}, "ViT: expected pool 'mean' or 'class', received 'max'"),
        ({"dim": 4 * 10**400}, "ViT: expected dim of at most 2147483647, received 4000"),
        ({"width": 3}, "model vit: .*width"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("vit", **options)
