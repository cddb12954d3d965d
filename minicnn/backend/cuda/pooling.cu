// Max-pooling: one thread an output forward, one thread an input backward.

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
