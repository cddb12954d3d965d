// Elementwise activations, one thread an element, and softmax over rows, one warp a row.

KERNEL relu(const real* x, real* y, index_t count) {
    EACH(i, count);
    y[i] = x[i] < 0 ? 0 : x[i];  // NaN stays
}

KERNEL relu_grad(const real* gy, const real* y, real* gx, index_t count) {
    EACH(i, count);
    gx[i] = y[i] > 0 ? gy[i] : 0;
}

KERNEL leaky_relu(const real* x, real slope, real* y, index_t count) {
    EACH(i, count);
    y[i] = x[i] > 0 ? x[i] : x[i] * slope;
}

KERNEL leaky_relu_grad(const real* gy, const real* x, real slope, real* gx, index_t count) {
    EACH(i, count);
    gx[i] = x[i] > 0 ? gy[i] : gy[i] * slope;
}

KERNEL elu(const real* x, real alpha, real* y, index_t count) {
    EACH(i, count);
    y[i] = x[i] > 0 ? x[i] : alpha * expm1(x[i]);
}

KERNEL elu_grad(const real* gy, const real* x, real alpha, real* gx, index_t count) {
    EACH(i, count);
    gx[i] = x[i] > 0 ? gy[i] : gy[i] * (alpha * exp(x[i]));
}

__device__ inline real normal_cdf(real x) { return (real)0.5 * erfc(-x * (real)0.70710678118654752); }

__device__ inline real gelu_tanh(real x) {
    return tanh((real)0.79788456080286536 * (x + (real)0.044715 * x * x * x));  // sqrt(2 / pi)
}

KERNEL gelu(const real* x, index_t approximate, real* y, index_t count) {
    EACH(i, count);
    real v = x[i];
    y[i] = approximate ? (real)0.5 * v * (1 + gelu_tanh(v)) : v * normal_cdf(v);
}

KERNEL gelu_grad(const real* gy, const real* x, index_t approximate, real* gx, index_t count) {
    EACH(i, count);
    real v = x[i], slope;
    if (approximate) {
        real t = gelu_tanh(v), inner = (real)0.79788456080286536 * (1 + 3 * (real)0.044715 * v * v);
        slope = (real)0.5 * (1 + t) + (real)0.5 * v * (1 - t * t) * inner;
    } else {
        slope = normal_cdf(v) + v * exp((real)-0.5 * v * v) * (real)0.39894228040143268;  // 1 / sqrt(2 pi)
    }
    gx[i] = gy[i] * slope;
}

KERNEL sigmoid(const real* x, real* y, index_t count) {
    EACH(i, count);
    real e = exp(-fabs(x[i]));
    y[i] = (x[i] >= 0 ? 1 : e) / (1 + e);
}

KERNEL sigmoid_grad(const real* gy, const real* y, real* gx, index_t count) {
    EACH(i, count);
    gx[i] = gy[i] * (y[i] * (1 - y[i]));
}

KERNEL tanh_grad(const real* gy, const real* y, real* gx, index_t count) {
    EACH(i, count);
    gx[i] = gy[i] * (1 - y[i] * y[i]);
}

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
