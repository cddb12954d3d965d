// Max-pooling: one thread an output forward, one thread an input backward. Means: a thread or a warp an output.

// Where `relu` is set, of relu(x), with the winners of x: of an element of float32 it reads 4 bytes, and writes 6 a window.
KERNEL max_pool2d(const real* x, real* y, unsigned short* taps, index_t relu, GEOMETRY) {
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
    y[i] = relu ? line_relu(best) : best;
    taps[i] = (unsigned short)tap;
}

// Behind relu with its result y: where that is 0, no gradient passes. It writes 4 bytes an element of float32, and reads
// 6 a window, or 10.
KERNEL max_pool2d_grad(const real* gy, const real* y, const unsigned short* taps, real* gx, GEOMETRY) {
    EACH(i, n * c * h * w);
    index_t row = i / w % h + ph, col = i % w + pw, plane = i / (w * h) * oh * ow;
    real sum = 0;
    for (index_t u = 0; u < kh; u++) {
        for (index_t v = 0; v < kw; v++) {
            index_t t = window_at(row - u * dh, sh, oh), j = window_at(col - v * dw, sw, ow);
            index_t window = plane + t * ow + j;
            if (t >= 0 && j >= 0 && taps[window] == u * kw + v) sum += y ? line_relu_grad(gy[window], y[window]) : gy[window];
        }
    }
    gx[i] = sum;
}

// The run of factors of a window that are not 0; they lie side by side, `apart` from each other, and only they count: an
// infinity elsewhere stays there.
struct Run {
    index_t from, to;

    __device__ Run(const real* factors, index_t apart, index_t count) : from(0), to(count) {
        while (from < to && factors[from * apart] == 0) from++;
        while (from < to && factors[(to - 1) * apart] == 0) to--;
    }
};

// Row o of the matrix has its factor k at o line + k step.
#define MEANS                                                                                                         \
    const real *x, const real *rows, index_t row_line, index_t row_step, const real *columns, index_t column_line,    \
        index_t column_step, real *y, index_t h, index_t w, index_t oh, index_t ow, index_t count
#define THIS_MEAN                                                                                                    \
    const real *picture = x + i / (ow * oh) * h * w, *row = rows + i / ow % oh * row_line;                           \
    const real* column = columns + i % ow * column_line;                                                             \
    Run vertical(row, row_step, h), horizontal(column, column_step, w)

// One thread an output, for small windows.
KERNEL avg_pool2d(MEANS) {
    EACH(i, count);
    THIS_MEAN;
    real sum = 0;
    for (index_t u = vertical.from; u < vertical.to; u++) {
        real line = 0;
        for (index_t v = horizontal.from; v < horizontal.to; v++) line += column[v * column_step] * picture[u * w + v];
        sum += row[u * row_step] * line;
    }
    y[i] = sum;
}

// One warp an output, for large windows: its threads read side by side, 4 bytes an element of float32.
KERNEL avg_pool2d_of_many(MEANS) {
    EACH_ROW(i, count);
    THIS_MEAN;
    index_t high = vertical.to - vertical.from, wide = horizontal.to - horizontal.from;
    real sum = 0;
    LANES(j, high * wide) {
        index_t u = vertical.from + j / wide, v = horizontal.from + j % wide;
        sum += row[u * row_step] * (column[v * column_step] * picture[u * w + v]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) y[i] = sum;
}
