// Softmax over rows, one warp a row.

KERNEL softmax(const real* x, real* y, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    real top, total;
    row_softmax(x + row * k, k, &top, &total);
    LANES(j, k) y[row * k + j] = exp(x[row * k + j] - top) / total;
}

KERNEL softmax_grad(const real* gy, const real* y, real* gx, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    real sum = 0;
    LANES(j, k) sum += gy[row * k + j] * y[row * k + j];
    sum = warp_sum(sum);
    LANES(j, k) gx[row * k + j] = y[row * k + j] * (gy[row * k + j] - sum);
}

KERNEL log_softmax(const real* x, real* y, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    real top, total;
    row_softmax(x + row * k, k, &top, &total);
    total = log(total);
    LANES(j, k) y[row * k + j] = x[row * k + j] - top - total;
}

KERNEL log_softmax_grad(const real* gy, const real* y, real* gx, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    real sum = 0;
    LANES(j, k) sum += gy[row * k + j];
    sum = warp_sum(sum);
    LANES(j, k) gx[row * k + j] = gy[row * k + j] - exp(y[row * k + j]) * sum;
}
