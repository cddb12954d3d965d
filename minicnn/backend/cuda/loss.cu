// Softmax and cross-entropy, one warp an image.

// q_j of a row: weight_j (smooth + peak t_j), t given by a label (1 there, else 0) or in full.
struct Target {
    const long long* labels;
    const real *targets, *weight;
    real peak, smooth;
    index_t row, k;

    __device__ real operator[](index_t j) const {
        real q = !labels ? peak * targets[row * k + j] + smooth : j == labels[row] ? smooth + peak : smooth;
        return weight ? q * weight[j] : q;
    }
};

KERNEL cross_entropy(const real* logits, const long long* labels, const real* targets, const real* weight, real peak,
                     real smooth, real* losses, real* probabilities, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    const real* x = logits + row * k;
    Target target = {labels, targets, weight, peak, smooth, row, k};
    real top, total, loss = 0;
    row_softmax(x, k, &top, &total);
    real log_total = log(total);
    LANES(j, k) {
        real q = target[j];
        if (q != 0) loss -= q * (x[j] - top - log_total);  // the logit may be -infinity
        probabilities[row * k + j] = exp(x[j] - top) / total;
    }
    loss = warp_sum(loss);
    if (threadIdx.x % 32 == 0) losses[row] = loss;
}

// glosses are `apart` from each other: 0 where all are the same.
KERNEL cross_entropy_grad(const real* glosses, index_t apart, const real* probabilities, const long long* labels, const real* targets,
                          const real* weight, real peak, real smooth, real* gx, index_t rows, index_t k) {
    EACH_ROW(row, rows);
    Target target = {labels, targets, weight, peak, smooth, row, k};
    real sum = 0;
    LANES(j, k) sum += target[j];
    sum = warp_sum(sum);
    LANES(j, k) gx[row * k + j] = glosses[row * apart] * (probabilities[row * k + j] * sum - target[j]);
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

// The first of the largest elements of a row; NaN is larger than all.
__device__ inline index_t first_largest(const real* x, index_t k) {
    index_t largest = 0;
    for (index_t j = 1; j < k; j++)
        if (x[j] > x[largest] || (isnan(x[j]) && !isnan(x[largest]))) largest = j;
    return largest;
}

// What a step says of itself, by one block, a thread an image. The place of its row is on the device, or given.
KERNEL note_step(double* rows, const double* place_there, index_t place, const real* loss, const double* norm,
                 const real* logits, const long long* labels, const real* targets, index_t n, index_t k) {
    Pair right = {0, 0};
    for (index_t i = threadIdx.x; i < n; i += blockDim.x) {
        index_t truth = labels ? labels[i] : first_largest(targets + i * k, k);
        right.first += first_largest(logits + i * k, k) == truth;
    }
    right = block_sum(right);
    if (threadIdx.x == 0) {
        double* row = rows + 3 * (place_there ? (index_t)*place_there : place);
        row[0] = *loss;
        row[1] = norm ? *norm : 0;
        row[2] = right.first;
    }
}
