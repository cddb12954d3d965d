"""The vision transformer (Dosovitskiy et al., 2021) for small pictures."""

import minicnn.functional as F
from minicnn import nn
from minicnn.functional.arguments import check_count, check_option
from minicnn.nn import init
from minicnn.tensor import Tensor


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the norms come first (Xiong et al., 2020)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """(N, tokens, dim) -> the same shape."""
        x = self.norm1(input)
        x = input + self.dropout(self.attention(x, x, x, need_weights=False)[0])
        return x + self.dropout(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """Patches as tokens, with learned positions; blocks of attention and MLP; a linear head on one vector.

    Matrices start Xavier uniform and biases at 0; positions and class token start normal with deviation 0.02.

    Args:
        num_classes: number of logits.
        depth: number of blocks.
        dim: channels of a token, a multiple of ``heads``.
        heads: attentions side by side in a block.
        mlp_ratio: hidden channels of the MLP by ``dim``.
        dropout: probability, on the weights of attention, in the MLP and on what a block adds.
        pool: "mean" of the tokens, or "class" for a token of its own that reads the others.
        patch_size: height and width of a patch in pixels, a divisor of ``image_size``. Time and memory grow with the
            square of the number of patches: take 8 for 64 x 64 pixels, and 16 for 224 x 224.
        stem: "patches", a linear map of each patch, or "convolutions" by 3 x 3 that halve the picture until a pixel
            stands for a patch, each with batch norm and ReLU, and a 1 x 1 convolution (Xiao et al., 2021): it learns
            faster from few pictures. Its ``patch_size`` is a power of 2.
        image_size: height and width of the pictures.
        in_channels: channels of the pictures.

    Example:
        >>> sum(p.numel() for p in models.ViT().parameters())
        810890
    """

    class_token: nn.Parameter | None

    def __init__(
        self,
        num_classes: int = 10,
        depth: int = 6,
        dim: int = 128,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        pool: str = "mean",
        patch_size: int = 4,
        stem: str = "patches",
        image_size: int = 32,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_count("ViT", depth=depth, dim=dim, heads=heads, patch_size=patch_size)
        check_count("ViT", image_size=image_size, in_channels=in_channels)
        if dim % heads:
            raise ValueError(f"ViT: expected dim as a multiple of heads, received {dim} and {heads}")
        if image_size % patch_size:
            raise ValueError(
                f"ViT: expected patch_size as a divisor of image_size, {image_size}, received {patch_size}"
            )
        if not isinstance(mlp_ratio, int | float) or not 1 <= mlp_ratio * dim < float("inf"):
            raise ValueError(f"ViT: expected mlp_ratio as a number from 1 / dim, received {mlp_ratio!r}")
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"ViT: expected dropout as a number in [0, 1), received {dropout!r}")
        check_option("ViT", "pool", pool, "mean", "class")
        check_option("ViT", "stem", stem, "patches", "convolutions")
        if stem == "convolutions" and patch_size & (patch_size - 1):
            raise ValueError(
                f"ViT: expected patch_size as a power of 2, for the stem of convolutions, received {patch_size}; "
                "take stem 'patches'"
            )
        tokens = (image_size // patch_size) ** 2 + (pool == "class")
        if stem == "patches":
            self.patches: nn.Module = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        else:
            self.patches = _convolutions(in_channels, dim, patch_size)
        self.register_parameter("class_token", nn.Parameter(init.empty(1, 1, dim)) if pool == "class" else None)
        self.positions = nn.Parameter(init.empty(1, tokens, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, int(mlp_ratio * dim), dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 3:
                init.normal_(parameter, std=0.02)
            elif parameter.ndim == 2:
                init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                init.zeros_(parameter)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, image_size, image_size) -> logits (N, num_classes)."""
        x = F.flatten(self.patches(input), 2).transpose(1, 2)  # (N, 3, 32, 32) -> (N, dim, 64) -> (N, 64, dim)
        if self.class_token is not None:
            x = F.cat([F.broadcast_to(self.class_token, (len(x), 1, x.shape[2])), x], 1)  # -> (N, 65, dim)
        x = self.blocks(self.dropout(x + self.positions))
        x = self.norm(x).mean(1) if self.class_token is None else self.norm(x[:, 0])  # -> (N, dim)
        return self.head(x)  # -> (N, num_classes)


def _convolutions(in_channels: int, dim: int, patch_size: int) -> nn.Sequential:
    """The stem of convolutions: the last that halves the picture has ``dim`` channels, each before half as many."""
    halvings = patch_size.bit_length() - 1
    layers: list[nn.Module] = []
    channels = in_channels
    for left in reversed(range(halvings)):
        width = max(dim >> left, 1)
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, dim, 1))
