"""From stored pictures to a batch: gather, shift, flip and normalise."""

from minicnn.backend.arrays import namespace


def gather_images(images, index, flip, dy, dx, mean, std, mode):
    """A normalised float32 batch of shifted and mirrored pictures.

    y[i,c,h,w] = (s/255 - mean[c]) / std[c], s = images[index[i], c, h + dy[i], (W-1-w if flip[i] else w) + dx[i]];
    outside the picture s is mirrored at the edge pixel (mode "reflect") or 0 ("constant").
    images: uint8 (M, C, H, W); index, dy, dx: int64 (N,), shifts smaller than the picture; flip: bool (N,);
    mean, std: float32 (C,) -> float32 (N, C, H, W).
    """
    xp = namespace(images)
    h, w = images.shape[2:]
    rows = xp.arange(h) + dy[:, None]  # (N, H)
    columns = xp.where(flip[:, None], w - 1 - xp.arange(w), xp.arange(w)) + dx[:, None]  # (N, W)
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]  # (N, H, W)
    rows, columns = _reflect(rows, h, xp), _reflect(columns, w, xp)
    picture = images[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    if mode == "constant":
        picture = picture * inside[..., None]
    scale = 1 / (255 * std)
    y = picture.astype(xp.float32) * scale - mean / std
    return xp.ascontiguousarray(y.transpose(0, 3, 1, 2))


def _reflect(position, size, xp):
    """Mirror positions in (-size, 2 size - 1) at the edge elements 0 and size - 1."""
    return size - 1 - xp.abs(size - 1 - xp.abs(position))
