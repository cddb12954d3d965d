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
# A letter for each axis: $N$ pictures in a batch, $C$ channels, $H \times W$ pixels, $O$ output channels, and
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
from minicnn.training import explain, pretrained

IN_NOTEBOOK = "ipykernel" in sys.modules
FOLDER = Path("runs/tour")
FOLDER.mkdir(parents=True, exist_ok=True)


def show(thing: Any, name: str = "") -> None:
    """Show something in a notebook. In a script, write a picture to a file of this name, or print up to 40 lines."""
    if IN_NOTEBOOK:
        from IPython.display import display

        display(thing)
    elif name:
        path = FOLDER / f"{name}.png"
        if isinstance(thing, Image.Image):
            thing.save(path)
        else:
            path.write_bytes(plots.to_png(thing))
        print(f"picture: {path}")
    else:
        lines = str(thing).splitlines()
        print("\n".join([*lines[:40], *["..."] * (len(lines) > 40)]))


def in_a_row(images: np.ndarray) -> Image.Image:
    """Pictures side by side, uint8 (N, C, H, W) -> one picture, twice as large."""
    row = np.concatenate(list(images), axis=2)  # (C, H, N W)
    picture = Image.fromarray(row.transpose(1, 2, 0).squeeze())
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


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
    (N, C, H, W), (KH, KW) = x.shape, w.shape[2:]
    y = np.empty((N, len(w), H - KH + 1, W - KW + 1), x.dtype)
    for n, o, i, j in np.ndindex(y.shape):
        y[n, o, i, j] = b[o]
        for c, u, v in np.ndindex(C, KH, KW):
            y[n, o, i, j] += w[o, c, u, v] * x[n, c, i + u, j + v]
    return y


# %% [markdown]
# The filter $\begin{pmatrix}1&0\\0&-1\end{pmatrix}$ subtracts from each pixel its neighbour one row down and one column
# to the right. On the numbers 1 to 9, three in a row, that neighbour is always larger by 4.

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
    (N, _, H, W), (KH, KW) = x.shape, w.shape[2:]
    y = im2col(x, KH, KW) @ w.reshape(len(w), -1).T + b  # (N OH OW, O)
    return y.reshape(N, H - KH + 1, W - KW + 1, len(w)).transpose(0, 3, 1, 2)


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
show(by_minicnn[0, 0])  # the first output channel of the first picture

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
# *Padding* $p$ puts zeros around the picture, *stride* $s$ moves the filter by more than one pixel at a time. The
# output has
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
digits = data.load("digits", channels=1)  # 1,797 digits that come with scikit-learn, enlarged from 8 x 8 to 32 x 32
digit = digits.train.images[:1]  # the first picture, uint8 (1, 1, 32, 32)
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
inputs = minicnn.tensor([1.0, 2.0, 3.0])
wanted = 2 * inputs
weight = minicnn.tensor(0.5, requires_grad=True)

loss = ((weight * inputs - wanted) ** 2).mean()
loss.backward()
assert weight.grad is not None
print(f"loss {loss.item()}, gradient {weight.grad.item()}")
assert np.isclose(weight.grad.item(), -14)

# %% [markdown]
# A second `backward` *adds* to the gradient. That is wanted where several batches make one step; everywhere else
# `zero_grad` goes first.

# %%
((weight * inputs - wanted) ** 2).mean().backward()
assert np.isclose(weight.grad.item(), -28)

# %% [markdown]
# The convolution above has a gradient as well. As $Y = X_{\text{col}} W^\top$, it is a product of matrices again:
# $\frac{dL}{dW} = \left(\frac{dL}{dY}\right)^{\!\top} X_{\text{col}}$.

# %%
x, filters = rng.standard_normal((2, 3, 9, 7)), Tensor(w, requires_grad=True)
output = F.conv2d(Tensor(x), filters)  # (2, 4, 8, 5)
gy = rng.standard_normal(output.shape)  # some dL/dY
output.backward(Tensor(gy))

gy_rows = gy.transpose(0, 2, 3, 1).reshape(-1, 4)  # (N OH OW, O)
assert filters.grad is not None
assert np.allclose(filters.grad.numpy(), (gy_rows.T @ im2col(x, 2, 3)).reshape(w.shape))

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
table = minicnn.summary(lenet, (1, 32, 32))

# %% [markdown]
# ### One training step, spelled out
#
# The softmax makes probabilities of the logits $z$, and the loss is the cross-entropy: the mean of $-\log$ of the
# probability that the network gave to the right class.
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L = -\frac1N \sum_n \log p_{n,\,\text{label}_n}, \qquad
# \frac{\partial L}{\partial z} = \frac{p - \text{onehot}}{N}$$
#
# Before training all ten classes are about equally probable, so the loss is near $\log 10 = 2.30$. The pixels are moved
# and scaled to mean 0 and deviation 1 first: a network starts best with numbers of that size.

# %%
pixels = digits.train.images[:64].astype(np.float32)  # (64, 1, 32, 32), from 0 to 255
batch = Tensor((pixels - pixels.mean()) / pixels.std())
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
# 0, something is broken, and a larger data set will not mend it. Adam divides the step of each weight by the usual size
# of its gradient, so that one learning rate suits all layers, and most networks.

# %%
adam = optim.Adam(lenet.parameters(), lr=0.002)
for number in range(60):
    loss = F.cross_entropy(lenet(batch), labels)
    adam.zero_grad()
    loss.backward()
    adam.step()
    if number % 10 == 9:
        print(f"step {number + 1}: loss {loss.item():.4f}")
assert loss.item() < 0.05

# %% [markdown]
# ## 4. Training on real data
#
# The digits come as three parts. The network learns from the *training* pictures. After each epoch (each time it has
# seen all of them) it is asked about the *validation* pictures, and the best epoch is kept. The *test* pictures are
# used once, at the end: an accuracy on pictures that helped to choose the network would be too good.

# %%
train, validation, test = digits.train, digits.validation, digits.test
assert validation is not None
print(f"{len(train):,} pictures to train on, {len(validation)} to validate on, {len(test)} to test on")
show(in_a_row(train.images[:12]), "digits")
print("their labels:", *train.labels[:12])

# %% [markdown]
# `minicnn.fit` does what the loop above did, batch after batch, and what a serious run needs besides: it scales the
# pixels to mean 0 and deviation 1, shuffles the pictures anew in each epoch, moves each by up to two pixels so that the
# network seldom sees the same one twice, lowers the learning rate towards the end, and validates. It takes a data set,
# as here, or a pair of arrays: `fit(model, (x, y))`.

# %%
minicnn.manual_seed(0)
lenet = LeNet()
history = minicnn.fit(lenet, train, validation, epochs=15, batch_size=64, augment={"shift": 2}, progress=False)
show(history)

# %% [markdown]
# Both losses should fall, as they do here. If neither does, try another learning rate. The other trouble is
# *overfitting*: with few pictures that never move, the network learns those by heart, and its answers to others stay
# behind. The curves show it: training accuracy goes to 100%, validation accuracy does not follow.

# %%
hundred = train.subset(np.arange(100))
overfitted = minicnn.fit(LeNet(), hundred, validation, epochs=40, batch_size=20, progress=False)
show(overfitted.plot(), "overfitting")
assert overfitted["train_accuracy"][-1] == 1 and overfitted["validation_accuracy"][-1] < 0.95

# %% [markdown]
# Now the test pictures, which the well-trained network has never met.

# %%
result = minicnn.evaluate(lenet, test)
print(f"{result.accuracy:.1%} of {len(test)} test pictures right; guessing would give 10%")
assert result.accuracy > 0.96

# %% [markdown]
# How good is that? Always ask what something simple would reach. Here the simple thing is the nearest neighbour: the
# label of the training picture that differs least. On digits this small it does about as well as the network. On
# photographs it fails, because two pictures of cats hardly share a pixel.

# %%
known, asked = (np.asarray(part.images).reshape(len(part), -1).astype(np.float32) for part in (train, test))
distances = (asked**2).sum(axis=1, keepdims=True) - 2 * asked @ known.T + (known**2).sum(axis=1)  # (test, train)
accuracy = (train.labels[distances.argmin(axis=1)] == test.labels).mean()
print(f"nearest neighbour: {accuracy:.1%}")
assert abs(accuracy - result.accuracy) < 0.03

# %% [markdown]
# `predict` takes raw pictures and returns probabilities. It scales the pixels as `fit` did.

# %%
probabilities = minicnn.predict(lenet, test.images[:1])[0]
show(plots.probability_bars(test.images[0], probabilities, test.classes), "probabilities")
assert probabilities.shape == (10,) and np.isclose(probabilities.sum(), 1)

# %% [markdown]
# ## 5. Compiling
#
# Python runs the loop of section 3 operation by operation. `minicnn.compile` records a step once: which kernels it
# calls, on which shapes. It then fuses kernels, lays all arrays out in one piece of memory, and from the second call on
# replays the result. The numbers are the same up to rounding; `fit` compiles by itself.


# %%
def make_step(model: nn.Module) -> Any:
    """A function that trains ``model`` on one batch."""
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


minicnn.manual_seed(0)
model = LeNet()
eager = make_step(copy.deepcopy(model))
compiled = minicnn.compile(make_step(model))
targets = Tensor(labels)
for _ in range(5):
    assert np.isclose(eager(batch, targets).item(), compiled(batch, targets).item(), rtol=1e-4)


# %%
def milliseconds(step: Any) -> float:
    """The shortest time of 30 steps."""
    times = []
    for _ in range(30):
        start = time.perf_counter()
        step(batch, targets)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


print(f"a step on {len(labels)} pictures: eager {milliseconds(eager):.2f} ms, compiled {milliseconds(compiled):.2f} ms")

# %% [markdown]
# This is the plan, instruction by instruction. Each line says which layer it belongs to, what it does, and where its
# operands lie. The instructions below "the machine" run one after the other on eight pictures at a time, so that what
# one makes is still in the cache when the next one reads it.

# %%
plan: Any
(plan,) = compiled.plans.values()  # one, as all batches had the same shapes
show(plan)

# %% [markdown]
# A training step does three times the work of a prediction: the forward pass, the gradient of the weights, and the
# gradient of the inputs, each with as many multiplications as the first. Only the first layer does without the last
# one, since nobody asks how the pixels should change.

# %%
forward = {"conv1": 28 * 28 * 6 * 25, "conv2": 10 * 10 * 16 * 150, "fc": 400 * 120 + 120 * 84 + 84 * 10}  # MACs
print(f"{plan.flop() / 1e6:.1f} million floating-point operations a step")
assert plan.flop() == 2 * len(labels) * (3 * sum(forward.values()) - forward["conv1"])

# %% [markdown]
# Where does the time go? `profile` replays the plan and measures each kernel of each layer.

# %%
profile = plan.profile(batch, targets)
show(profile)
show(plots.profile(profile.layers()), "profile")
assert np.isclose(sum(row.share for row in profile.rows), 1)

# %% [markdown]
# ## 6. Pictures of your own
#
# A data set of your own is a folder with one folder for each class. To have one, the next cell draws circles, squares
# and triangles, in random colours, of different sizes, as different kinds of files, and not as many of each class. Put
# your own folder in its place.

# %%
PICTURES = FOLDER / "shapes"
SIDES = {"circle": 60, "square": 4, "triangle": 3}  # a polygon of 60 sides will do as a circle
COUNTS = {"circle": 150, "square": 100, "triangle": 75}


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """A shape of random size, place, angle and colour, in front of a background of another brightness."""
    width, height = rng.integers(40, 160, 2).tolist()
    colours = [tuple(rng.integers(low, low + 100, 3).tolist()) for low in rng.permutation([0, 155])]
    picture = Image.new("RGB", (width, height), colours[0])
    radius = min(width, height) * rng.uniform(0.25, 0.42)
    x, y = (side / 2 + rng.uniform(-0.06, 0.06) * min(width, height) for side in (width, height))
    ImageDraw.Draw(picture).regular_polygon((x, y, radius), SIDES[shape], rng.uniform(0, 360), fill=colours[1])
    return picture.convert(str(rng.choice(["RGB", "L", "P", "RGBA"])))


shutil.rmtree(PICTURES, ignore_errors=True)
rng = np.random.default_rng(0)
for shape, count in COUNTS.items():
    (PICTURES / shape).mkdir(parents=True)
    for number in range(count):
        drawn = draw(shape, rng)
        suffix = "jpg" if drawn.mode in ("RGB", "L") and number % 2 else "png"
        drawn.save(PICTURES / shape / f"{number}.{suffix}")

# %% [markdown]
# `data.load` reads the folder. Every picture becomes a square of 32 x 32 pixels (or of `image_size=64`, or another
# number) in three channels, and a part of each class is set aside for validation and for the test.

# %%
shapes = data.load(str(PICTURES), validation=0.15)
print(shapes.note)
for part in (shapes.train, shapes.validation, shapes.test):
    assert part is not None and part.images.shape[1:] == (3, 32, 32)
    print(dict(zip(part.classes, np.bincount(part.labels).tolist(), strict=True)))
show(in_a_row(shapes.train.images[:: len(shapes.train) // 12][:12]), "shapes")

# %% [markdown]
# A model of the package is made by its name. With `class_weights="balanced"` a mistake on a rare class counts more, so
# that it does not pay to guess the frequent one. Shapes stay the same when they are turned or mirrored, so `fit` may
# turn and mirror them: that multiplies the pictures. (A digit may not: turned by half a circle, a 6 is a 9.)

# %%
minicnn.manual_seed(0)
shapes_net = minicnn.models.create("lenet", num_classes=3)
turned = {"flip": 0.5, "rotation": 180}  # the probability of a mirrored picture; degrees, at most
history = minicnn.fit(
    shapes_net, shapes.train, shapes.validation, epochs=30, batch_size=32, augment=turned, class_weights="balanced"
)
show(history.plot(), "shapes-curves")
result = minicnn.evaluate(shapes_net, shapes.test)
some = rng.permutation(len(shapes.test))[:16]
shown = shapes.test.images[some], result.labels[some], result.predictions[some]
show(plots.samples(*shown, shapes.test.classes, result.probabilities[some]), "shapes-samples")
print(f"{result.accuracy:.1%} of {len(shapes.test)} test pictures right")
assert result.accuracy > 0.8

# %% [markdown]
# The commands do the same without a line of Python, and write weights, curves and a report into a folder:
#
#     python scripts/train.py --dataset runs/tour/shapes --class-weights balanced --out runs/shapes
#     python scripts/predict.py -image PICTURE --weights runs/shapes/best.safetensors
#
# ## 7. Few pictures: start from weights that have seen more
#
# With ten pictures of each class, a fresh network has little to learn from. The package comes with networks that were
# trained on the 50,000 photographs of CIFAR-10. Their first layers find edges, corners and spots of colour, which are
# of use for other pictures too. So take such a network, replace its last layer, which knows the old classes, and train
# on. This is *fine-tuning*. The network brings along how its pixels were scaled, and `fit` keeps to that.

# %%
places = np.concatenate([np.flatnonzero(shapes.train.labels == label)[:10] for label in range(3)])
few = shapes.train.subset(places)  # 30 pictures


def tuned(network: nn.Module, lr: float) -> float:
    """Train on the few pictures, and return the accuracy on the test pictures."""
    minicnn.fit(network, few, None, epochs=20, batch_size=10, lr=lr, augment=turned, progress=False)
    return minicnn.evaluate(network, shapes.test).accuracy


minicnn.manual_seed(0)
fresh = minicnn.models.create("resnet20", num_classes=3)
from_scratch = max(tuned(copy.deepcopy(fresh), lr) for lr in (2e-3, 5e-3))

trained = pretrained.load("resnet20-cifar10", minicnn.backend.get("numpy"))
resnet = trained.model
resnet.fc = nn.Linear(64, 3)  # the new head, of three classes
fine_tuned = tuned(resnet, 2e-3)
print(f"ten pictures a class: from scratch {from_scratch:.1%}, fine-tuned {fine_tuned:.1%}")
assert fine_tuned > from_scratch

# %% [markdown]
# The comparison is fair to the fresh network: it has the same number of steps, and the better of two learning rates,
# chosen by the test pictures. Still it is one draw of thirty pictures; `benchmarks/transfer.py` does it with five draws
# of photographs, and says how far they differ.
#
# By command, with pictures of your own: `python scripts/train.py --weights speedrun-cifar10 --dataset PICTURES`.
#
# ## 8. Looking inside
#
# The filters of a first convolution are small pictures themselves. These six are of the shipped LeNet, trained on
# photographs. There is a horizontal edge, a vertical one, diagonals, and a blue spot. They are much like the filters
# that were written by hand above, and nobody told the network to look for edges.

# %%
photographs = pretrained.load("lenet-cifar10", minicnn.backend.get("numpy")).model
learned = dict(photographs.named_parameters())["conv1.weight"].numpy()  # (6, 3, 5, 5)
show(plots.filters(learned), "filters")
upright = learned[4].mean(axis=0)  # the fifth, a vertical edge: its columns differ more than its rows
assert np.ptp(upright.mean(axis=0)) > 2 * np.ptp(upright.mean(axis=1))

# %% [markdown]
# A *feature map* is what one filter answers all over a picture. Bright means that it found what it looks for. These are
# of the network of section 4, on a digit.

# %%
digit = test.images[:1]
inputs = Tensor(lenet.preprocessing.normalize(digit))  # the pixels scaled as in training
maps = explain.feature_maps(lenet, inputs)
show(in_a_row(digit), "digit")
show(plots.feature_maps(maps["conv1"][0], "What the first convolution finds"), "feature-maps")
assert np.allclose(maps["conv1"], F.conv2d(inputs, lenet.conv1.weight, lenet.conv1.bias).numpy(), atol=1e-5)

# %% [markdown]
# Which parts of a picture speak for an answer? *Grad-CAM* (Selvaraju et al., 2017) asks the gradient. With $A_c$ the
# maps of the last convolution and $z_k$ the logit of the class,
#
# $$\text{heat} = \operatorname{relu}\Big(\sum_c a_c A_c\Big), \qquad
# a_c = \operatorname{mean}_{i,j} \frac{\partial z_k}{\partial A_{c,i,j}}$$
#
# It is six lines with what section 2 built. The package's own function has to agree.

# %%
label = int(minicnn.predict(lenet, digit).argmax())
A = Tensor(lenet.maps(inputs).numpy(), requires_grad=True)  # (1, 16, 10, 10)
lenet.classify(A)[0, label].backward()
assert A.grad is not None
a = A.grad.numpy().mean(axis=(2, 3), keepdims=True)  # (1, 16, 1, 1)
heat = np.maximum((a * A.numpy()).sum(axis=1), 0)  # (1, 10, 10)
heat = heat / heat.max()

assert np.allclose(heat, explain.grad_cam(lenet, inputs, [label]), atol=1e-4)

# %% [markdown]
# The same for one digit of each kind. Red and yellow is where the answer comes from. Empty places can speak for a class
# as well: the left side of a 3 is open.

# %%
chosen = test.subset(np.array([np.flatnonzero(test.labels == label)[0] for label in range(10)]))
images = np.asarray(chosen.images)
guesses = minicnn.predict(lenet, images).argmax(axis=1)
heat = explain.grad_cam(lenet, Tensor(lenet.preprocessing.normalize(images)), guesses)
show(plots.overlays(images, heat, [f"says {guess}" for guess in guesses], "Grad-CAM"), "grad-cam")
assert heat.shape == (10, 10, 10) and heat.min() >= 0 and heat.max() <= 1

# %% [markdown]
# A single accuracy hides which classes are confused with each other. The *confusion matrix* counts, for each true class
# (row), what the network said (column). What is right lies on the diagonal.

# %%
result = minicnn.evaluate(lenet, test)
counts = np.zeros((10, 10), int)
np.add.at(counts, (result.labels, result.predictions), 1)
assert (counts == result.confusion_matrix).all() and np.isclose(np.trace(counts) / counts.sum(), result.accuracy)
show(plots.confusion_matrix(counts, test.classes), "confusion-matrix")

# %% [markdown]
# ## 9. Where to go on
#
# - **Train on photographs**: `python scripts/train.py --recipe list`, then `--recipe resnet20 --dataset cifar10`.
# - **Look before you train**: `scripts/show.py` draws what a recipe does to the pictures, `scripts/find_lr.py` looks
#   for a learning rate.
# - **Read the engine**: `minicnn/autograd.py` is the tape, `minicnn/functional/conv.py` a forward beside its gradient,
#   `minicnn/backend/reference/` every kernel in plain NumPy, `minicnn/compile/` what became of the step in section 5.
# - **Change it**: `.github/CONTRIBUTING.md` shows how to add a function, a kernel, a model or a recipe.
# - **Look it up**: the command for the API reference is in `.github/CONTRIBUTING.md`, too.
#
# Exercises, from easy to hard:
#
# 1. Give LeNet batch norm (`nn.BatchNorm2d`) behind each convolution. Which learning rates work now that did not?
# 2. Train on 5, 10, 20 and 50 pictures of each shape, with fresh and with shipped weights. Where do the two meet?
# 3. Write a convolution that keeps its channels apart (depthwise), with loops and with a gradient of your own. Check
#    it by `gradcheck`, and compare it with `F.conv2d(..., groups=C)`.
