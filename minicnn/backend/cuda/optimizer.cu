// Steps of several arrays in one launch, and the norm of several gradients.

#define ARRAYS 48
#define PIECE (4 * BLOCK)  // elements of one row that a block works on: 4 a thread

// A table by value, 2.1 KB: row r has size[r] elements at each of at[0][r] ... at[3][r], and the blocks from first[r] up
// to first[r + 1]. A block finds its row among them in 6 steps; its threads read side by side.
struct Arrays {
    long long at[4][ARRAYS], size[ARRAYS];
    int first[ARRAYS + 1], rows;

    __device__ int row() const {
        int low = 0, high = rows;
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (first[middle] <= (int)blockIdx.x) low = middle;
            else high = middle;
        }
        return low;
    }

    // Call work(i) for the elements of a thread.
    template <typename Work>
    __device__ void each(int row, Work work) const {
        long long from = (long long)(blockIdx.x - first[row]) * PIECE + threadIdx.x;
        for (int k = 0; k < PIECE; k += BLOCK)
            if (from + k < size[row]) work(from + k);
    }

    __device__ real* array(int k, int row) const { return (real*)at[k][row]; }
};

// Numbers come by value, or lie on the device, where the replays of a graph find their own: those of all rows, and behind
// them `each` of each row.
struct Numbers {
    const double *there, *rows_there;
    double here[8], rows_here[2 * ARRAYS];
    long long each;

    __device__ double operator[](int k) const { return there ? there[k] : here[k]; }

    __device__ double of_row(int row, int k) const { return (there ? rows_there : rows_here)[row * each + k]; }
};

// Arrays: parameter, gradient, velocity. Of an element of float32 it reads 12 bytes and writes 8; without velocity, 8, 4.
KERNEL sgd_steps(const Arrays a, const Numbers n, index_t nesterov) {
    int row = a.row();
    real *parameter = a.array(0, row), *gradient = a.array(1, row), *velocity = a.array(2, row);
    double lr = n[0], weight_decay = n[1], momentum = n[2], fresh = n[3];
    bool first = n.of_row(row, 0) != 0;
    a.each(row, [=](long long i) {
        if (velocity)
            line_sgd_momentum_step(gradient[i], lr, weight_decay, momentum, fresh, first, nesterov != 0, parameter[i],
                                   velocity[i]);
        else
            line_sgd_step(gradient[i], lr, weight_decay, parameter[i]);
    });
}

// Arrays: parameter, gradient, mean, square. Of an element of float32 it reads 16 bytes and writes 12.
KERNEL adam_steps(const Arrays a, const Numbers n) {
    int row = a.row();
    real *parameter = a.array(0, row), *gradient = a.array(1, row), *mean = a.array(2, row), *square = a.array(3, row);
    double keep = n[0], weight_decay = n[1], beta1 = n[2], fresh1 = n[3], beta2 = n[4], fresh2 = n[5], eps = n[6];
    double rate = n.of_row(row, 0), root = n.of_row(row, 1);
    a.each(row, [=](long long i) {
        line_adam_step(gradient[i], keep, weight_decay, beta1, fresh1, beta2, fresh2, eps, rate, root, parameter[i],
                       mean[i], square[i]);
    });
}

// Arrays: target, value. Of an element of float32 it reads 8 bytes and writes 4.
KERNEL lerps_into(const Arrays a, const Numbers n) {
    int row = a.row();
    double weight = n[0];
    real *target = a.array(0, row), *value = a.array(1, row);
    a.each(row, [=](long long i) { line_lerp_into(value[i], weight, target[i]); });
}

// It reads and writes 4 bytes an element of float32.
KERNEL clip_norms(const Arrays a, const double* norm, double limit) {
    int row = a.row();
    double total = *norm;
    real* values = a.array(0, row);
    a.each(row, [=](long long i) { line_clip_norm(total, limit, values[i]); });
}

// Each block leaves the sum of the squares of its elements, of which it reads 4 bytes of float32.
KERNEL sums_of_squares(const Arrays a, double* partials) {
    int row = a.row();
    const real* values = a.array(0, row);
    Pair sum = {0, 0};
    a.each(row, [&](long long i) { sum.first += (double)values[i] * values[i]; });
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum.first;
}

// The root of the sum of all, by one block.
KERNEL root_of_sum(const double* partials, double* root, index_t count) {
    Pair sum = {0, 0};
    for (index_t i = threadIdx.x; i < count; i += BLOCK) sum.first += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *root = sqrt(sum.first);
}
