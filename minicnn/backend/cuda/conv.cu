// Windows as columns and back. Columns are (C, KH, KW, N, OH, OW): a group's are one matrix whose second axis runs over
// the whole batch, so that every convolution and each of its gradients is one product a group.

KERNEL im2col(const real* x, real* columns, GEOMETRY) {
    index_t positions = n * oh * ow;
    EACH(i, c * positions);
    index_t channel = i / positions, image = i / (oh * ow) % n, top = i / ow % oh * sh - ph, left = i % ow * sw - pw;
    const real* picture = x + (image * c + channel) * h * w;
    real* column = columns + channel * kh * kw * positions + i % positions;
    for (index_t u = 0; u < kh; u++) {
        for (index_t v = 0; v < kw; v++) {
            index_t row = top + u * dh, col = left + v * dw;
            bool inside = row >= 0 && row < h && col >= 0 && col < w;
            *column = inside ? picture[row * w + col] : 0;
            column += positions;
        }
    }
}

// Gathers instead of scattering: no atomics, and always the same order of additions.
KERNEL col2im(const real* columns, real* x, GEOMETRY) {
    EACH(i, n * c * h * w);
    index_t image = i / (c * h * w), channel = i / (h * w) % c, row = i / w % h + ph, col = i % w + pw;
    real sum = 0;
    for (index_t u = 0; u < kh; u++) {
        for (index_t v = 0; v < kw; v++) {
            index_t t = window_at(row - u * dh, sh, oh), j = window_at(col - v * dw, sw, ow);
            if (t >= 0 && j >= 0) sum += columns[((((channel * kh + u) * kw + v) * n + image) * oh + t) * ow + j];
        }
    }
    x[i] = sum;
}

KERNEL sum_channels(const real* x, double* partials, index_t n, index_t c, index_t p, index_t slices) {
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) { return Pair{(double)x[i], 0}; });
}
