# %% [markdown]
# # A tour of minicnn
#
# This tour goes from a convolution written as loops to a network that is fine-tuned on pictures of your own. What the
# text claims, the cell below it asserts: if the tour runs to its end, the claims hold on your machine. Times are the
# exception. They are printed, and depend on the machine.
#
# It is a Python script and a notebook in one file. From a clone in which `pip install -e .` has been run:
#
#     python scripts/tour.py                          # pictures go into runs/tour
#     pip install jupytext notebook
#     jupytext --to notebook scripts/tour.py          # writes scripts/tour.ipynb
#
# It downloads nothing and takes a minute or two on two cores. The first step that uses a kernel waits until the kernel
# is compiled, which happens once on a machine.
#
# Letters for shapes: $N$ pictures in a batch, $C$ channels, $H \times W$ pixels, $O$ output channels, and
# $K_H \times K_W$ weights of a filter in one channel.

# %%
import copy
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import minicnn
import minicnn.functional as F
from minicnn import Tensor, data, nn, optim, plots
from minicnn.training import explain

IN_NOTEBOOK = "ipykernel" in sys.modules
FOLDER = Path("runs/tour")
FOLDER.mkdir(parents=True, exist_ok=True)


def show(thing: Any, name: str = "") -> None:
    """Show something in a notebook. In a script, write a figure to a file of this name, and print anything else."""
    if IN_NOTEBOOK:
        from IPython.display import display

        display(thing)
    elif name:
        path = FOLDER / f"{name}.png"
        path.write_bytes(plots.to_png(thing))
        print(f"picture: {path}")
    else:
        print(thing)


# %% [markdown]
# ## 1. A convolution, three times
#
# A convolution lays a small filter $w$ over every place of a picture $x$, multiplies what lies on top of each other,
# and adds up:
#
# $$y_{n,o,i,j} = b_o + \sum_{c,u,v} w_{o,c,u,v} \; x_{n,c,i+u,j+v}$$
#
# As loops it reads like the equation.


# %%
def convolution(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, C, H, W), (O, C, KH, KW), (O,) -> (N, O, H - KH + 1, W - KW + 1)."""
    (N, C, H, W), (O, _, KH, KW) = x.shape, w.shape
    y = np.empty((N, O, H - KH + 1, W - KW + 1), x.dtype)
    for n, o, i, j in np.ndindex(y.shape):
        y[n, o, i, j] = b[o]
        for c, u, v in np.ndindex(C, KH, KW):
            y[n, o, i, j] += w[o, c, u, v] * x[n, c, i + u, j + v]
    return y


# %% [markdown]
# A filter $\begin{pmatrix}1&0\\0&-1\end{pmatrix}$ subtracts from each pixel its neighbour one row down and one column to
# the right. On the numbers 1 to 9, three in a row, that neighbour is always larger by 4.

# %%
counted = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
diagonal = np.array([[1.0, 0.0], [0.0, -1.0]]).reshape(1, 1, 2, 2)
print(convolution(counted, diagonal, np.zeros(1))[0, 0])
assert (convolution(counted, diagonal, np.zeros(1)) == -4).all()

# %% [markdown]
# Loops in Python are slow. The classical way out is *im2col*: write the window below each place of the filter into a
# row of a matrix. Then the whole convolution is one product of two matrices, which every machine does fast:
#
# $$Y = X_{\text{col}} \, W^\top + b, \qquad X_{\text{col}} \in \mathbb{R}^{(N O_H O_W) \times (C K_H K_W)}$$


# %%
def im2col(x: np.ndarray, KH: int, KW: int) -> np.ndarray:
    """(N, C, H, W) -> (N OH OW, C KH KW)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (KH, KW), axis=(2, 3))  # (N, C, OH, OW, KH, KW)
    N, C, OH, OW, _, _ = windows.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(N * OH * OW, C * KH * KW)


def convolution_by_matrices(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same as a product of matrices."""
    (N, _, H, W), (O, _, KH, KW) = x.shape, w.shape
    y = im2col(x, KH, KW) @ w.reshape(O, -1).T + b  # (N OH OW, O)
    return y.reshape(N, H - KH + 1, W - KW + 1, O).transpose(0, 3, 1, 2)


# %% [markdown]
# The third way is the one that networks use: `F.conv2d` on tensors. All three agree. The picture is higher than wide
# and the filter wider than high on purpose: code that mixes up two axes often survives on squares.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 9, 7))
w = rng.standard_normal((4, 3, 2, 3))
b = rng.standard_normal(4)

by_loops = convolution(x, w, b)
by_matrices = convolution_by_matrices(x, w, b)
by_minicnn = F.conv2d(Tensor(x), Tensor(w), Tensor(b))

assert by_loops.shape == (2, 4, 8, 5)
assert np.allclose(by_loops, by_matrices) and np.allclose(by_loops, by_minicnn.numpy())
show(by_minicnn)

# %% [markdown]
# Each pixel stands in many windows, so im2col needs several times the memory of the picture. This is why the kernels of
# minicnn walk over the picture instead. (The specification that they are tested against does use im2col: see
# `minicnn/backend/reference/conv.py`.)

# %%
picture = np.zeros((1, 3, 32, 32), np.float32)
columns = im2col(picture, 5, 5)
print(f"a picture has {picture.size:,} numbers, its columns for a 5 x 5 filter {columns.size:,}")
assert columns.shape == (28 * 28, 3 * 5 * 5) and columns.size > 19 * picture.size

# %% [markdown]
# *Padding* $p$ puts zeros around the picture, *stride* $s$ moves the filter by more than one pixel at a time. The output
# has
#
# $$O_H = \left\lfloor \frac{H + 2p - K_H}{s} \right\rfloor + 1$$
#
# rows. With a 3 x 3 filter and $p = 1$ the size stays; with $s = 2$ it halves.

# %%
for H, K, p, s in [(32, 5, 0, 1), (32, 3, 1, 1), (32, 3, 1, 2), (9, 4, 2, 3)]:
    y = F.conv2d(Tensor(np.zeros((1, 1, H, H))), Tensor(np.zeros((1, 1, K, K))), padding=p, stride=s)
    assert y.shape[2] == (H + 2 * p - K) // s + 1
    print(f"{H} rows, filter of {K}, padding {p}, stride {s}: {y.shape[2]} rows")

# %% [markdown]
# What is a filter good for? These four answer to edges: where the picture gets brighter to the right, downwards, and
# along the two diagonals. The picture is a handwritten digit; white means a strong answer. Nobody will choose filters
# by hand below: a network learns its own.

# %%
digits = data.load("digits")  # 1,797 digits that come with scikit-learn, enlarged from 8 x 8 to 32 x 32
digit = digits.train.images[:1, :1]  # uint8 (1, 1, 32, 32): the first picture, one of its three equal channels
right = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)  # Sobel's filter
slanted = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)
edges = np.stack([right, right.T, slanted, slanted[:, ::-1]])[:, None]  # (4, 1, 3, 3)
answers = F.conv2d(Tensor(digit.astype(np.float32)), Tensor(edges), padding=1).numpy()
show(plots.feature_maps(np.concatenate([digit[0], np.maximum(answers[0], 0)]), "A digit and its edges"), "edges")
assert not F.conv2d(Tensor(np.ones((1, 1, 8, 8), np.float32)), Tensor(edges)).numpy().any()  # nothing where all is even

# %% [markdown]
# ## 2. Gradients
#
# Learning means: change each weight a little in the direction that makes the error smaller. That direction is the
# negative gradient. Take one weight $w$, and the mean squared error of $w x$ as a guess of $y$:
#
# $$L(w) = \frac{1}{N} \sum_i (w x_i - y_i)^2, \qquad \frac{dL}{dw} = \frac{2}{N} \sum_i (w x_i - y_i) \, x_i$$
#
# For $x = (1, 2, 3)$, $y = 2x$ and $w = \tfrac12$ that is $\frac23 \cdot (-\tfrac32) \cdot (1 + 4 + 9) = -14$.
#
# A tensor that `requires_grad` writes down the operations it goes through. `backward` walks back over them, from the
# last to the first, and multiplies by the derivative of each (the chain rule).

# %%
x = minicnn.tensor([1.0, 2.0, 3.0])
y = 2 * x
weight = minicnn.tensor(0.5, requires_grad=True)

loss = ((weight * x - y) ** 2).mean()
loss.backward()
assert weight.grad is not None
print(f"loss {loss.item()}, gradient {weight.grad.item()}")
assert np.isclose(weight.grad.item(), -14)

# %% [markdown]
# A second `backward` *adds* to the gradient. That is wanted where several batches make one step; everywhere else
# `zero_grad` goes first.

# %%
((weight * x - y) ** 2).mean().backward()
assert np.isclose(weight.grad.item(), -28)

# %% [markdown]
# The convolution above has a gradient as well. As $Y = X_{\text{col}} W^\top$, it is a product of matrices again:
# $\frac{dL}{dW} = \left(\frac{dL}{dY}\right)^{\!\top} X_{\text{col}}$.

# %%
images, filters = rng.standard_normal((2, 3, 9, 7)), Tensor(w, requires_grad=True)
output = F.conv2d(Tensor(images), filters)  # (2, 4, 8, 5)
gy = rng.standard_normal(output.shape)  # some dL/dY
output.backward(Tensor(gy))

gy_rows = gy.transpose(0, 2, 3, 1).reshape(-1, 4)  # (N OH OW, O)
assert filters.grad is not None
assert np.allclose(filters.grad.numpy(), (gy_rows.T @ im2col(images, 2, 3)).reshape(w.shape))

# %% [markdown]
# How does one know that a gradient is right, without deriving it again? By the definition of a derivative: move the
# input a little both ways, and see how far the output moves. `gradcheck` does that along random directions, in float64.

# %%
x64 = Tensor(rng.standard_normal((2, 3, 6, 5)), requires_grad=True)
w64 = Tensor(rng.standard_normal((4, 3, 3, 2)), requires_grad=True)
error = minicnn.gradcheck(lambda x, w: F.conv2d(x, w, stride=2, padding=1), [x64, w64])
print(f"largest relative error of the gradients: {error:.1e}")
assert error < 1e-6

# %% [markdown]
# You can add an operation of your own: its result, and for each input a function from the gradient of the output to
# that of the input. Here is $x^3$, once with its derivative $3x^2$, and once with a mistake of two percent. A check is
# only worth something if it can fail.


# %%
def cube(x: Tensor, factor: float = 3.0) -> Tensor:
    """x^3, and its gradient where ``factor`` is 3."""
    return Tensor.from_op(x.data**3, (x,), (lambda gy: gy * factor * x.data**2,))


minicnn.gradcheck(cube, [x64])
try:
    minicnn.gradcheck(lambda x: cube(x, 3.06), [x64])
except AssertionError as refused:
    print(refused)
else:
    raise AssertionError("the wrong gradient was not found")

# %% [markdown]
# ## 3. A network from parts: LeNet
#
# LeCun's network of 1998 has everything that later ones have, only fewer of each. Two convolutions find strokes and
# corners. After each, ReLU sets what is negative to 0, and max-pooling keeps the largest of each 2 x 2 pixels, so that
# small shifts do not matter. Three linear layers make of what was found one number for each class, its *logit*.


# %%
class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling, (N, 1, 32, 32) -> logits (N, classes)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def maps(self, x: Tensor) -> Tensor:
        """What the second convolution finds: (N, 1, 32, 32) -> (N, 16, 10, 10)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 6, 28, 28) -> (N, 6, 14, 14)
        return self.conv2(x)

    def classify(self, x: Tensor) -> Tensor:
        """The logits of such maps: (N, 16, 10, 10) -> (N, classes)."""
        x = F.flatten(F.max_pool2d(F.relu(x), 2), 1)  # (N, 16, 5, 5) -> (N, 400)
        x = F.relu(self.fc1(x))  # (N, 120)
        x = F.relu(self.fc2(x))  # (N, 84)
        return self.fc3(x)  # (N, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.maps(x))


minicnn.manual_seed(0)
lenet = LeNet()
show(lenet)

# %% [markdown]
# Count them by hand: a convolution has $O \, (C K_H K_W + 1)$ numbers, with the bias, and a linear layer
# $\text{out} \cdot (\text{in} + 1)$. Most of them sit in the first linear layer, most of the work in the convolutions:
# a convolution uses each of its weights at every pixel. (MACs are multiplications with an addition.)

# %%
by_hand = 6 * (1 * 5 * 5 + 1) + 16 * (6 * 5 * 5 + 1) + 120 * (400 + 1) + 84 * (120 + 1) + 10 * (84 + 1)
assert by_hand == sum(p.numel() for p in lenet.parameters()) == 61_706
_ = minicnn.summary(lenet, (1, 32, 32))

# %% [markdown]
# ### One training step, spelled out
#
# The softmax makes probabilities of the logits $z$, and the loss is the cross-entropy: the mean of $-\log$ of the
# probability that the network gave to the right class.
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L = -\frac1N \sum_n \log p_{n,\,\text{label}_n}, \qquad
# \frac{\partial L}{\partial z} = \frac{p - \text{onehot}}{N}$$
#
# Before training all ten classes are about equally probable, so the loss is near $\log 10 = 2.30$.

# %%
batch = Tensor(digits.train.images[:64, :1].astype(np.float32) / 255)  # (64, 1, 32, 32), from 0 to 1
labels = digits.train.labels[:64]

logits = lenet(batch)
loss = F.cross_entropy(logits, labels)

z = logits.numpy()
p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
assert np.isclose(loss.item(), -np.log(p[np.arange(64), labels]).mean(), rtol=1e-5)
assert abs(loss.item() - np.log(10)) < 0.1
print(f"loss before training {loss.item():.3f}, log 10 is {np.log(10):.3f}")

# %% [markdown]
# `backward` fills in the gradient of every parameter. Stochastic gradient descent then makes a step of the length of
# the *learning rate* $\eta$ against it: $w \leftarrow w - \eta \, \partial L / \partial w$. An optimizer does this for
# all parameters.

# %%
optimizer = optim.SGD(lenet.parameters(), lr=0.1)
optimizer.zero_grad()
loss.backward()
before = {name: p.numpy().copy() for name, p in lenet.named_parameters()}
optimizer.step()
for name, parameter in lenet.named_parameters():
    assert parameter.grad is not None
    assert np.allclose(parameter.numpy(), before[name] - 0.1 * parameter.grad.numpy(), atol=1e-7), name

# the gradient of the last bias is the sum of dL/dz over the pictures
onehot = np.eye(10)[labels]
assert lenet.fc3.bias is not None and lenet.fc3.bias.grad is not None
assert np.allclose(lenet.fc3.bias.grad.numpy(), ((p - onehot) / 64).sum(axis=0), atol=1e-6)

# %% [markdown]
# The first test of any network of your own: can it learn one batch by heart? If the loss of 64 pictures does not go to
# 0, something is broken, and a larger data set will not mend it. Momentum lets a step go on in the direction of the
# ones before.

# %%
optimizer = optim.SGD(lenet.parameters(), lr=0.05, momentum=0.9)
for number in range(60):
    loss = F.cross_entropy(lenet(batch), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if number % 10 == 9:
        print(f"step {number + 1}: loss {loss.item():.4f}")
assert loss.item() < 0.05
