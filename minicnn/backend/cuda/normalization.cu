// Sums of batch norm over channels of (N, C, P), and layer norm over rows.

KERNEL batch_norm_sums(const real* x, double* partials, index_t n, index_t c, index_t p, index_t slices) {
    // Deviations from one value of the channel: their squares do not cancel when the mean is large.
    real origin = x[blockIdx.x / slices * p];
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) {
        double d = (double)x[i] - origin;
        return Pair{d, d * d};
    });
}

KERNEL batch_norm_moments(const double* partials, real* mean, real* variance, index_t c, index_t slices, const real* x,
                          index_t p, index_t values) {
    EACH(channel, c);
    Pair total = channel_total(partials, channel, slices);
    double shift = total.first / values, spread = total.second / values - shift * shift;
    mean[channel] = (real)(x[channel * p] + shift);
    variance[channel] = (real)(spread < 0 ? 0 : spread);
}

KERNEL batch_norm_grad_sums(const real* gy, const real* x, const real* mean, const real* inverse_std, double* partials,
                            index_t n, index_t c, index_t p, index_t slices) {
    real centre = mean[blockIdx.x / slices], scale = inverse_std[blockIdx.x / slices];
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) {
        return Pair{(double)gy[i] * ((x[i] - centre) * scale), (double)gy[i]};
    });
}

KERNEL layer_norm(const real* x, const real* weight, const real* bias, real eps, real* y, real* mean, real* inverse_std,
                  index_t rows, index_t k) {
    EACH_ROW(row, rows);
    const real* values = x + row * k;
    real sum = 0, squares = 0;
    LANES(j, k) sum += values[j];
    real centre = warp_sum(sum) / k;
    LANES(j, k) squares += (values[j] - centre) * (values[j] - centre);
    real scale = 1 / sqrt(warp_sum(squares) / k + eps);
    LANES(j, k) {
        real value = (values[j] - centre) * scale;
        if (weight) value *= weight[j];
        if (bias) value += bias[j];
        y[row * k + j] = value;
    }
    if (threadIdx.x % 32 == 0) {
        mean[row] = centre;
        inverse_std[row] = scale;
    }
}

KERNEL layer_norm_grad(const real* gy, const real* x, const real* mean, const real* inverse_std, const real* weight,
                       real* gx, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    real sum = 0, product = 0;
    LANES(j, k) {
        real g = weight ? gy[row * k + j] * weight[j] : gy[row * k + j];
        sum += g;
        product += g * ((x[row * k + j] - mean[row]) * inverse_std[row]);
    }
    sum = warp_sum(sum) / k;
    product = warp_sum(product) / k;
    LANES(j, k) {
        real g = weight ? gy[row * k + j] * weight[j] : gy[row * k + j];
        real xhat = (x[row * k + j] - mean[row]) * inverse_std[row];
        gx[row * k + j] = inverse_std[row] * (g - sum - xhat * product);
    }
}

KERNEL layer_norm_grad_sums(const real* gy, const real* x, const real* mean, const real* inverse_std, double* partials,
                            index_t n, index_t c, index_t p, index_t slices) {
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t row) {
        return Pair{(double)gy[i] * ((x[i] - mean[row]) * inverse_std[row]), (double)gy[i]};
    });
}
