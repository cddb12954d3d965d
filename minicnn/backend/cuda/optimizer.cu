// The norm of a gradient: each block leaves the sum of its squares.

KERNEL sums_of_squares(const real* a, double* partials, index_t count) {
    Pair sum = {0, 0};
    for (index_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        sum.first += (double)a[i] * a[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum.first;
}
