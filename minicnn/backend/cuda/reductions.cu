// The sum of all elements, in float64, by one block: 4 bytes an element of float32. It may be divided by a number.

KERNEL total(const real* a, real* y, real divisor, index_t count) {
    Pair sum = {0, 0};
    for (index_t i = threadIdx.x; i < count; i += BLOCK) sum.first += a[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *y = (real)sum.first / divisor;
}
