// Softmax and cross-entropy, one warp an image.

// q_j: weight_j (smooth + peak [j = label]).
__device__ inline real target(index_t j, index_t label, const real* weight, real peak, real smooth) {
    real q = j == label ? smooth + peak : smooth;
    return weight ? q * weight[j] : q;
}

KERNEL cross_entropy(const real* logits, const long long* labels, const real* weight, real peak, real smooth, real* losses,
                     real* probabilities, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    const real* x = logits + row * k;
    index_t label = (index_t)labels[row];
    real top, total, loss = 0;
    row_softmax(x, k, &top, &total);
    real log_total = log(total);
    LANES(j, k) {
        loss -= target(j, label, weight, peak, smooth) * (x[j] - top - log_total);
        probabilities[row * k + j] = exp(x[j] - top) / total;
    }
    loss = warp_sum(loss);
    if (threadIdx.x % 32 == 0) losses[row] = loss;
}

KERNEL cross_entropy_grad(const real* glosses, const real* probabilities, const long long* labels, const real* weight,
                          real peak, real smooth, real* gx, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    index_t label = (index_t)labels[row];
    real sum = 0;
    LANES(j, k) sum += target(j, label, weight, peak, smooth);
    sum = warp_sum(sum);
    LANES(j, k) {
        real q = target(j, label, weight, peak, smooth);
        gx[row * k + j] = glosses[row] * (probabilities[row * k + j] * sum - q);
    }
}

// Smallest and largest of a few labels, by one block.
KERNEL label_range(const long long* labels, long long* range, index_t count) {
    __shared__ long long lowest[256], highest[256];
    unsigned t = threadIdx.x;
    lowest[t] = highest[t] = labels[0];
    for (index_t i = t; i < count; i += blockDim.x) {
        if (labels[i] < lowest[t]) lowest[t] = labels[i];
        if (labels[i] > highest[t]) highest[t] = labels[i];
    }
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) {
            if (lowest[t + half] < lowest[t]) lowest[t] = lowest[t + half];
            if (highest[t + half] > highest[t]) highest[t] = highest[t + half];
        }
    }
    if (t == 0) {
        range[0] = lowest[0];
        range[1] = highest[0];
    }
}
