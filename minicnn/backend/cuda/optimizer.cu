// Optimizer steps and clipping in one pass over the parameters.

KERNEL sgd_step(real* parameter, const real* gradient, real* velocity, index_t first, real lr, real momentum, real fresh,
                real weight_decay, index_t nesterov, index_t count) {
    EACH(i, count);
    real g = gradient[i];
    if (weight_decay) g += weight_decay * parameter[i];
    if (velocity) {
        real v = first ? g : momentum * velocity[i] + fresh * g;
        velocity[i] = v;
        g = nesterov ? g + momentum * v : v;
    }
    parameter[i] -= lr * g;
}

KERNEL adam_step(real* parameter, const real* gradient, real* mean, real* square, real keep, real weight_decay, real beta1,
                 real fresh1, real beta2, real fresh2, real rate, real root, real eps, index_t count) {
    EACH(i, count);
    real value = parameter[i] * keep, g = gradient[i] + weight_decay * value;
    real m = beta1 * mean[i] + fresh1 * g, s = beta2 * square[i] + fresh2 * g * g;
    mean[i] = m;
    square[i] = s;
    parameter[i] = value - rate * m / (sqrt(s) / root + eps);
}

KERNEL sums_of_squares(const real* a, double* partials, index_t count) {
    Pair sum = {0, 0};
    for (index_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        sum.first += (double)a[i] * a[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum.first;
}

KERNEL clip_norm(real* a, const double* norm, real limit, index_t count) {
    EACH(i, count);
    if (isfinite(*norm) && *norm > limit) a[i] *= (real)(limit / (*norm + 1e-6));
}
