// What all kernels share. Before this file stand `real`, the type of the elements, `index_t`, which is int, or long long
// where an array has 2^30 elements or more (64-bit divisions are several times slower), and BLOCK, threads of a block.
// Shapes have the names of the reference: N images, C channels, H x W input, KH x KW window, OH x OW output.

#define KERNEL extern "C" __global__ void

// One thread an element.
#define EACH(i, count)                                              \
    index_t i = blockIdx.x * (index_t)blockDim.x + threadIdx.x;     \
    if (i >= (count)) return

// One warp a row; LANES deals the elements of a row out to its threads.
#define EACH_ROW(row, rows)                                                   \
    index_t row = blockIdx.x * (index_t)(blockDim.x / 32) + threadIdx.x / 32; \
    if (row >= (rows)) return
#define LANES(j, count) for (index_t j = threadIdx.x % 32; j < (count); j += 32)

// Windows over pictures: sizes, then (vertical, horizontal) stride, padding and dilation.
#define GEOMETRY                                                                                                    \
    index_t n, index_t c, index_t h, index_t w, index_t kh, index_t kw, index_t oh, index_t ow, index_t sh, index_t sw, \
        index_t ph, index_t pw, index_t dh, index_t dw

struct Geometry {
    index_t n, c, h, w, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw;
};
#define THIS_GEOMETRY {n, c, h, w, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw}

// Where something lies in an array, and in its picture.
struct Spot {
    index_t at;
    int row, column;
};

// The window whose tap lies `position` elements after the first window's first tap, or -1 if there is none.
__device__ inline index_t window_at(index_t position, index_t stride, index_t windows) {
    if (position < 0 || position % stride) return -1;
    return position / stride < windows ? position / stride : -1;
}

// Every lane receives the result, bit for bit the same: all add the same pairs.
template <typename T>
__device__ T warp_sum(T value) {
    for (int lane = 16; lane; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
    return value;
}

__device__ inline real warp_max(real value) {
    for (int lane = 16; lane; lane /= 2) {
        real other = __shfl_xor_sync(0xffffffffu, value, lane);
        if (other > value) value = other;
    }
    return value;
}

// Largest element of a row, and the sum of e^(x - largest); with a NaN in the row the sum is NaN.
__device__ inline void row_softmax(const real* x, index_t k, real* top, real* total) {
    real highest = x[0], sum = 0;
    LANES(j, k) if (x[j] > highest) highest = x[j];
    *top = highest = warp_max(highest);
    LANES(j, k) sum += exp(x[j] - highest);
    *total = warp_sum(sum);
}

struct Pair {
    double first, second;
};

// Sums over a block, for thread 0; at most once in a kernel.
__device__ inline Pair block_sum(Pair value) {
    __shared__ Pair warps[32];
    value.first = warp_sum(value.first);
    value.second = warp_sum(value.second);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    Pair total = {0, 0};
    for (unsigned i = 0; i < blockDim.x / 32; i++) {
        total.first += warps[i].first;
        total.second += warps[i].second;
    }
    return total;
}

// Elements of a channel of an array (N, C, P): number `j` among its N P values and those `step` further on each time,
// without a division for each.
struct Walk {
    index_t j, step, image, rest, image_step, rest_step, c, p, channel;

    __device__ Walk(index_t from, index_t step, index_t c, index_t p, index_t channel)
        : j(from), step(step), image(from / p), rest(from % p), image_step(step / p), rest_step(step % p), c(c), p(p),
          channel(channel) {}

    __device__ index_t index() const { return (image * c + channel) * p + rest; }

    __device__ void next() {
        j += step;
        image += image_step;
        rest += rest_step;
        if (rest >= p) {
            rest -= p;
            image++;
        }
    }
};

// Two sums over the values of a channel of an array (N, C, P). Each of a channel's `slices` blocks leaves the sums of
// term(index of the element, n) over its part in partials (C, slices, 2); the totals are added up in order.
template <typename Term>
__device__ void channel_sums(double* partials, index_t n, index_t c, index_t p, index_t slices, Term term) {
    index_t from = blockIdx.x % slices * blockDim.x + threadIdx.x;
    Pair sum = {0, 0};
    for (Walk at(from, slices * blockDim.x, c, p, blockIdx.x / slices); at.j < n * p; at.next()) {
        Pair value = term(at.index(), at.image);
        sum.first += value.first;
        sum.second += value.second;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partials[2 * blockIdx.x] = sum.first;
        partials[2 * blockIdx.x + 1] = sum.second;
    }
}

__device__ inline Pair channel_total(const double* partials, index_t channel, index_t slices) {
    Pair total = {0, 0};
    for (index_t s = channel * slices; s < (channel + 1) * slices; s++) {
        total.first += partials[2 * s];
        total.second += partials[2 * s + 1];
    }
    return total;
}

KERNEL channel_totals(const double* partials, real* first, real* second, index_t c, index_t slices) {
    EACH(channel, c);
    Pair total = channel_total(partials, channel, slices);
    first[channel] = (real)total.first;
    second[channel] = (real)total.second;
}

// The same for all threads of a block, which load the sums of up to BLOCK slices; at most once in a kernel.
__device__ inline Pair block_total(const double* partials, index_t channel, index_t slices) {
    __shared__ Pair parts[BLOCK], total;
    if (threadIdx.x < slices) {
        index_t s = channel * slices + threadIdx.x;
        parts[threadIdx.x].first = partials[2 * s];
        parts[threadIdx.x].second = partials[2 * s + 1];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        Pair sum = {0, 0};
        for (index_t s = 0; s < slices; s++) {
            sum.first += parts[s].first;
            sum.second += parts[s].second;
        }
        total = sum;
    }
    __syncthreads();
    return total;
}
