// Max-pooling: one thread an output forward, one thread an input backward. Means: one thread an output both ways.

KERNEL max_pool2d(const real* x, real* y, unsigned short* taps, GEOMETRY) {
    EACH(i, n * c * oh * ow);
    index_t top = i / ow % oh * sh - ph, left = i % ow * sw - pw;
    const real* picture = x + i / (ow * oh) * h * w;
    // The first tap on the picture wins a window of nothing but -infinity.
    index_t first_u = top < 0 ? (dh - 1 - top) / dh : 0, first_v = left < 0 ? (dw - 1 - left) / dw : 0;
    index_t tap = first_u * kw + first_v;
    real best = (real)__longlong_as_double(0xfff0000000000000LL);  // -infinity
    for (index_t u = first_u; u < kh && top + u * dh < h; u++) {
        for (index_t v = first_v; v < kw && left + v * dw < w; v++) {
            real value = picture[(top + u * dh) * w + left + v * dw];
            if (value > best || (isnan(value) && !isnan(best))) {
                best = value;
                tap = u * kw + v;
            }
        }
    }
    y[i] = best;
    taps[i] = (unsigned short)tap;
}

KERNEL max_pool2d_grad(const real* gy, const unsigned short* taps, real* gx, GEOMETRY) {
    EACH(i, n * c * h * w);
    index_t row = i / w % h + ph, col = i % w + pw, plane = i / (w * h) * oh * ow;
    real sum = 0;
    for (index_t u = 0; u < kh; u++) {
        for (index_t v = 0; v < kw; v++) {
            index_t t = window_at(row - u * dh, sh, oh), j = window_at(col - v * dw, sw, ow);
            if (t >= 0 && j >= 0 && taps[plane + t * ow + j] == u * kw + v) sum += gy[plane + t * ow + j];
        }
    }
    gx[i] = sum;
}

// Only factors that are not 0 count, and they lie side by side: an infinity elsewhere stays there.
KERNEL avg_pool2d(const real* x, const real* rows, const real* columns, real* y, index_t h, index_t w, index_t oh,
                  index_t ow, index_t count) {
    EACH(i, count);
    const real *picture = x + i / (ow * oh) * h * w, *row = rows + i / ow % oh * h, *column = columns + i % ow * w;
    index_t left = 0, right = w;
    while (left < right && column[left] == 0) left++;
    while (left < right && column[right - 1] == 0) right--;
    real sum = 0;
    for (index_t u = 0; u < h; u++) {
        if (row[u] == 0) continue;
        real line = 0;
        for (index_t v = left; v < right; v++) line += column[v] * picture[u * w + v];
        sum += row[u] * line;
    }
    y[i] = sum;
}
