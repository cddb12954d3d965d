// Sums of products, C(i, j) = sum over k of A(i, k) B(k, j), of which convolutions and matrix products are made.
//
// A block of BLOCK threads makes a tile of C, each thread EDGE x EDGE of its sums in registers. It goes along k in
// pieces of DEPTH: the threads bring a piece of A and one of B to shared memory, where each reads 8 numbers for 16
// multiply-adds. An element that is read from global memory serves as many multiply-adds as the tile has columns, or
// rows: one of 64 x 64 reads 0.06 bytes of float32 a floating-point operation, one of 16 x 256, for few rows, 0.13.
// Shared memory: ROOM elements, 17.1 KB of float32 and 34.3 KB of float64, and what the sources keep of a step.
//
// Sources say where the elements of A and B lie: `line(i)` is what is to know of a row of A or a column of B, `step(k)`
// of a k, and `at(line, step)` the element. A thread makes the lines that it loads once; one thread makes a step for
// all. ALONG_STEPS: steps lie side by side in memory, not lines, and so threads side by side load them.

#define DEPTH 16
#define EDGE 4
#define FEW_ROWS 16
#define ROOM (DEPTH * (FEW_ROWS + 1 + EDGE * EDGE * BLOCK / FEW_ROWS + 1))

__device__ inline index_t smaller(index_t a, index_t b) { return a < b ? a : b; }

template <typename Source, int LINES>
struct Loader {
    static const int APART = Source::ALONG_STEPS ? BLOCK / DEPTH : LINES;
    static const int COUNT = LINES / APART;  // of the lines of a thread, which are APART
    typename Source::Line lines[COUNT];

    // Lines behind the last are that: nobody looks at its products there.
    __device__ Loader(const Source& source, index_t from, index_t end) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) lines[i] = source.line(smaller(from + first() + i * APART, end - 1));
    }

    __device__ static int first() { return Source::ALONG_STEPS ? threadIdx.x / DEPTH : threadIdx.x % LINES; }

    // A row of the piece is a step, and one longer than the lines, so that threads write to different banks. Steps
    // from `count` on are 0.
    __device__ void load(const Source& source, real* piece, const typename Source::Step* steps, index_t count) const {
        int s = Source::ALONG_STEPS ? threadIdx.x % DEPTH : threadIdx.x / LINES;
        for (; s < DEPTH; s += Source::ALONG_STEPS ? DEPTH : BLOCK / LINES) {
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                piece[s * (LINES + 1) + first() + i * APART] = s < count ? source.at(lines[i], steps[s]) : 0;
        }
    }
};

// What a launch makes: in each of `groups` products C of `rows` x `columns`, k to `depth`. C(i, j) lies at i y_row +
// j / y_inner y_outer + j % y_inner y_apart of its product, which are y_group apart, unless j % y_inner is y_used or
// more: that is padding. What is written there is what `put` makes of a sum. Of each product `slices` are made, which
// share k; they are in `partials` (slices, groups, rows, columns), and the block that is done last with a tile, by
// `counters`, adds them up in order. Counters are 0 before a launch and after it.
#define PRODUCTS                                                                                                    \
    real *y, const real *bias, const real *gate, index_t relu, index_t rows, index_t columns, index_t depth,         \
        index_t groups, index_t slices, real *partials, unsigned *counters, index_t y_group, index_t y_row,          \
        index_t y_inner, index_t y_outer, index_t y_apart, index_t y_used
#define THESE_PRODUCTS                                                                                              \
    y, bias, gate, relu, rows, columns, depth, groups, slices, partials, counters, y_group, y_row, y_inner, y_outer, \
        y_apart, y_used

// bias: of the rows, or null. relu: whether to take that of the sum; gate: where it is 0 or less, so is what is written
// (the gradient of relu, `gate` its result), or null.
struct Output {
    real* y;
    const real *bias, *gate;
    bool relu;
    index_t row, inner, outer, apart, used;

    __device__ void put(index_t i, index_t j, real value) const {
        const index_t rest = j % inner, place = i * row + j / inner * outer + rest * apart;
        if (rest >= used) return;
        if (bias) value += bias[i];
        if (relu) value = line_relu(value);
        y[place] = gate ? line_relu_grad(value, gate[place]) : value;
    }
};

// The tile of a block, of `high` x `wide` sums: they are numbered by slices, groups, and tiles of a product. A slice has
// a number of steps that `piece` divides.
struct Tile {
    index_t number, top, left, group, product, first, last;

    __device__ Tile(int high, int wide, int piece, index_t rows, index_t columns, index_t depth, index_t groups,
                    index_t slices) {
        const index_t across = (columns + wide - 1) / wide, down = (rows + high - 1) / high, block = blockIdx.x;
        const index_t share = ((depth + slices - 1) / slices + piece - 1) / piece * piece;
        number = block % (across * down * groups);
        left = block % across * wide;
        top = block / across % down * high;
        product = block / across / down;
        group = product % groups;
        first = product / groups * share;
        last = smaller(first + share, depth);
    }
};

// Whether this block is the last of `slices` to come here; what the others wrote before can then be read.
__device__ inline bool is_last(unsigned* counter, index_t slices) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1u) == (unsigned)slices - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// Make a tile of `high` x `wide` sums: make(output) puts those of this block's slice.
template <typename Make>
__device__ void finish_tile(const Tile& tile, int high, int wide, Make make, PRODUCTS) {
    const Output output{y + tile.group * y_group, bias ? bias + tile.group * rows : nullptr,
                        gate ? gate + tile.group * y_group : nullptr, relu != 0, y_row, y_inner, y_outer, y_apart, y_used};
    if (slices == 1) return make(output);
    const index_t apart = rows * columns;
    make(Output{partials + tile.product * apart, nullptr, nullptr, false, columns, columns, 0, 1, columns});
    if (!is_last(counters + tile.number, slices)) return;
    for (int t = threadIdx.x; t < high * wide; t += BLOCK) {
        const index_t i = tile.top + t / wide, j = tile.left + t % wide;
        if (i >= rows || j >= columns) continue;
        double total = 0;
        for (index_t s = 0; s < slices; s++) total += partials[(s * groups + tile.group) * apart + i * columns + j];
        output.put(i, j, (real)total);
    }
}

// One tile.
template <int ROWS, typename A, typename B>
__device__ void tile_product(const A& a, const B& b, const Output& c, index_t rows, index_t columns, const Tile& tile,
                             real* room, typename A::Step* a_steps, typename B::Step* b_steps) {
    const int COLUMNS = EDGE * EDGE * BLOCK / ROWS, HIGH = ROWS / EDGE, WIDE = COLUMNS / EDGE;
    const int t = threadIdx.x, x = t % WIDE, y = t / WIDE;
    real *a_piece = room, *b_piece = room + DEPTH * (ROWS + 1);
    Loader<A, ROWS> a_loader(a, tile.top, rows);
    Loader<B, COLUMNS> b_loader(b, tile.left, columns);
    real sums[EDGE][EDGE] = {};
    for (index_t k = tile.first; k < tile.last; k += DEPTH) {
        if (t < DEPTH && k + t < tile.last) {  // others may still multiply: they look at the pieces alone
            a_steps[t] = a.step(k + t);
            b_steps[t] = b.step(k + t);
        }
        __syncthreads();
        a_loader.load(a, a_piece, a_steps, tile.last - k);
        b_loader.load(b, b_piece, b_steps, tile.last - k);
        __syncthreads();
#pragma unroll
        for (int s = 0; s < DEPTH; s++) {
            real u[EDGE], v[EDGE];
#pragma unroll
            for (int i = 0; i < EDGE; i++) u[i] = a_piece[s * (ROWS + 1) + y + i * HIGH];
#pragma unroll
            for (int j = 0; j < EDGE; j++) v[j] = b_piece[s * (COLUMNS + 1) + x + j * WIDE];
#pragma unroll
            for (int i = 0; i < EDGE; i++)
#pragma unroll
                for (int j = 0; j < EDGE; j++) sums[i][j] = fma(u[i], v[j], sums[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < EDGE; i++)
#pragma unroll
        for (int j = 0; j < EDGE; j++) {
            index_t row = tile.top + y + i * HIGH, column = tile.left + x + j * WIDE;
            if (row < rows && column < columns) c.put(row, column, sums[i][j]);
        }
}

// a_of and b_of: from a group to a source.
template <typename OfA, typename OfB>
__device__ void products(OfA a_of, OfB b_of, PRODUCTS) {
    typedef decltype(a_of(0)) A;
    typedef decltype(b_of(0)) B;
    __shared__ real room[ROOM];
    __shared__ typename A::Step a_steps[DEPTH];
    __shared__ typename B::Step b_steps[DEPTH];
    const int high = rows > FEW_ROWS ? 64 : FEW_ROWS, wide = EDGE * EDGE * BLOCK / high;
    const Tile tile(high, wide, DEPTH, rows, columns, depth, groups, slices);
    const A a = a_of(tile.group);
    const B b = b_of(tile.group);
    auto make = [&](const Output& c) {
        if (rows > FEW_ROWS) {
            tile_product<64>(a, b, c, rows, columns, tile, room, a_steps, b_steps);
        } else {
            tile_product<FEW_ROWS>(a, b, c, rows, columns, tile, room, a_steps, b_steps);
        }
    };
    finish_tile(tile, high, wide, make, THESE_PRODUCTS);
}
