// Sums of batch norm over channels of (N, C, P), and layer norm over rows.

KERNEL batch_norm_sums(const real* x, double* partials, index_t n, index_t c, index_t p, index_t slices) {
    // Deviations from one value of the channel: their squares do not cancel when the mean is large.
    real origin = x[blockIdx.x / slices * p];
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) {
        double d = (double)x[i] - origin;
        return Pair{d, d * d};
    });
}

struct Moments {
    real mean, variance;
};

// Of the sums that batch_norm_sums made with deviations from `origin`.
__device__ inline Moments moments(Pair total, real origin, index_t values) {
    double shift = total.first / values, spread = total.second / values - shift * shift;
    return {(real)(origin + shift), (real)(spread < 0 ? 0 : spread)};
}

KERNEL batch_norm_moments(const double* partials, real* mean, real* variance, index_t c, index_t slices, const real* x,
                          index_t p, index_t values) {
    EACH(channel, c);
    Moments found = moments(channel_total(partials, channel, slices), x[channel * p], values);
    mean[channel] = found.mean;
    variance[channel] = found.variance;
}

// The activation behind a batch norm: 0 none, 1 relu, 2 gelu, 3 its tanh form.
__device__ inline real activated(real x, index_t activation) {
    switch (activation) {
        case 1: return line_relu(x);
        case 2: return line_gelu(x);
        case 3: return line_gelu_tanh(x);
        default: return x;
    }
}

// Its gradient, from its input.
__device__ inline real activated_grad(real gy, real x, index_t activation) {
    switch (activation) {
        case 1: return line_relu_grad(gy, x);
        case 2: return line_gelu_grad(gy, x);
        case 3: return line_gelu_tanh_grad(gy, x);
        default: return gy;
    }
}

// The second of two launches of a training step, behind batch_norm_sums: each block adds up the slices of its channel
// and makes one of its `parts`, 8 elements a thread; the first part's keeps the statistics, too. Of an element it reads
// x, and residual if there is one, and writes y: 8 bytes of float32, or 12. Shared memory: 4 KB of sums.
// running += share (batch - running), share from the device where it is there.
KERNEL batch_norm_train(const double* partials, const real* x, real* running_mean, real* running_var,
                        const double* share_there, real share, real correction, const real* weight, const real* bias,
                        real eps, const real* residual, index_t activation, real* y, real* mean, real* inverse_std,
                        index_t n, index_t c, index_t p, index_t slices, index_t parts) {
    index_t channel = blockIdx.x / parts, part = blockIdx.x % parts;
    Moments batch = moments(block_total(partials, channel, slices), x[channel * p], n * p);
    real scale = line_power(batch.variance + eps, (real)-0.5);
    if (part == 0 && threadIdx.x == 0) {
        mean[channel] = batch.mean;
        inverse_std[channel] = scale;
        if (running_mean) {
            real moved = share_there ? (real)*share_there : share;
            running_mean[channel] += moved * (batch.mean - running_mean[channel]);
            running_var[channel] += moved * (batch.variance * correction - running_var[channel]);
        }
    }
    real w = weight ? weight[channel] : 1, b = bias ? bias[channel] : 0;
    for (Walk at(part * BLOCK + threadIdx.x, parts * BLOCK, c, p, channel); at.j < n * p; at.next()) {
        index_t i = at.index();
        real value = line_batch_norm(x[i], batch.mean, scale, w, b);
        y[i] = activated(residual ? value + residual[i] : value, activation);
    }
}

// Batch norm's sums of gy xhat and gy, gy being brought through the activation; it reads 8 bytes an element of float32.
KERNEL batch_norm_grad_sums(const real* gy, const real* x, const real* mean, const real* inverse_std,
                            const real* weight, const real* bias, index_t activation, double* partials, index_t n,
                            index_t c, index_t p, index_t slices) {
    index_t channel = blockIdx.x / slices;
    real centre = mean[channel], scale = inverse_std[channel];
    real w = weight ? weight[channel] : 1, b = bias ? bias[channel] : 0;
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) {
        real g = activated_grad(gy[i], line_batch_norm(x[i], centre, scale, w, b), activation);
        return Pair{(double)g * ((x[i] - centre) * scale), (double)g};
    });
}

// The second launch of the gradient, arranged as batch_norm_train: 12 bytes an element.
KERNEL batch_norm_train_grad(const double* partials, const real* gy, const real* x, const real* mean,
                             const real* inverse_std, const real* weight, const real* bias, index_t activation, real* gx,
                             real* gweight, real* gbias, index_t n, index_t c, index_t p, index_t slices,
                             index_t parts) {
    index_t channel = blockIdx.x / parts, part = blockIdx.x % parts;
    Pair total = block_total(partials, channel, slices);
    real centre = mean[channel], scale = inverse_std[channel], gw = (real)total.first, gb = (real)total.second;
    if (part == 0 && threadIdx.x == 0) {
        gweight[channel] = gw;
        gbias[channel] = gb;
    }
    real w = weight ? weight[channel] : 1, b = bias ? bias[channel] : 0;
    gw /= n * p;
    gb /= n * p;
    for (Walk at(part * BLOCK + threadIdx.x, parts * BLOCK, c, p, channel); at.j < n * p; at.next()) {
        index_t i = at.index();
        real g = activated_grad(gy[i], line_batch_norm(x[i], centre, scale, w, b), activation);
        real xhat = (x[i] - centre) * scale;
        gx[i] = (g - gb - xhat * gw) * (scale * w);
    }
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

// Sums over rows of (rows, k) of gy xhat and gy. A block makes those of 32 columns in its slice of the rows: a warp reads
// them side by side, 8 warps one row each. They read 8 bytes an element of float32. Shared memory: 4 KB.
KERNEL layer_norm_grad_sums(const real* gy, const real* x, const real* mean, const real* inverse_std, double* partials,
                            index_t rows, index_t k, index_t slices) {
    __shared__ Pair sums[BLOCK];
    index_t slice = blockIdx.x % slices, column = blockIdx.x / slices * 32 + threadIdx.x % 32;
    Pair sum = {0, 0};
    if (column < k) {
        for (index_t row = slice * (BLOCK / 32) + threadIdx.x / 32; row < rows; row += slices * (BLOCK / 32)) {
            index_t i = row * k + column;
            sum.first += (double)gy[i] * ((x[i] - mean[row]) * inverse_std[row]);
            sum.second += gy[i];
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= 32 || column >= k) return;
    for (int t = threadIdx.x + 32; t < BLOCK; t += 32) {
        sum.first += sums[t].first;
        sum.second += sums[t].second;
    }
    partials[2 * (column * slices + slice)] = sum.first;
    partials[2 * (column * slices + slice) + 1] = sum.second;
}
