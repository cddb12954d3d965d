// Products on tensor cores, for rounded operands: `element` is the bits of a bfloat16, or of a float32 of which tensor
// cores take the first 19 (TF32). Sums are float32. GPUs from sm_80 on.
//
// The tiles are those of product.cuh in larger: 128 or 64 rows by 128 columns for a block of 8 warps, each of which has
// 64 or 32 rows and 32 columns in registers (64 or 32 sums a thread), in pieces of 64 bytes of k. While a piece is
// multiplied the next one comes from memory: two of them are in 40 KB of shared memory. A vector of 16 bytes that is
// read serves as many multiply-adds as the tile has columns, or rows, for each of its elements: 0.016 bytes of bfloat16
// a floating-point operation, of TF32 twice that.
//
// Sources are as there, but `at(line, step)` is the address of a vector of 16 bytes, or null for one of zeros. With
// ALONG_STEPS it holds as many steps of a line from this one on, otherwise as many lines of a step from this one on:
// both start where the length of a vector divides them, and axes of channels are padded with zeros for that.

#define VECTOR ((int)(16 / sizeof(element)))
#define STEPS ((int)(64 / sizeof(element)))
#define WIDE 128
#define STAGE (WIDE * 5)  // vectors of a piece, with the padding of its rows

struct alignas(16) Vector {
    unsigned words[4];
};

// The bits of a number: to the nearest, of two for bfloat16 the even one and for TF32 the one away from 0.
__device__ inline element rounded(float number) {
    const unsigned bits = __float_as_uint(number);
    if (sizeof(element) == 2) return (element)((isnan(number) ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    return (element)(isnan(number) ? bits | 0x400000u : (bits + 0x1000u) & 0xffffe000u);
}

// What only a GPU has stands beside what it does on a CPU, where the tests run.

// Copy a vector to shared memory, behind the back of the thread; zeros where `from` is null.
__device__ inline void start_copy(Vector* to, const element* from) {
#ifdef __CUDA_ARCH__
    unsigned place = (unsigned)__cvta_generic_to_shared(to), bytes = from ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes) : "memory");
#else
    *to = from ? *(const Vector*)from : Vector{};
#endif
}

__device__ inline void finish_copies() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Four matrices of 8 x 8 elements of 16 bits, transposed: lane 8 m + i has the address of row i of matrix m; part m of
// lane 4 i + j becomes rows 2 j and 2 j + 1 of column i.
__device__ inline void load_transposed(unsigned* parts, const unsigned short* row) {
#ifdef __CUDA_ARCH__
    unsigned place = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(place)
                 : "memory");
#else
    static const unsigned short* rows[BLOCK];
    const int t = threadIdx.x, lane = t % 32;
    rows[t] = row;
    __syncwarp();
    for (int m = 0; m < 4; m++) {
        const unsigned short** matrix = rows + t - lane + 8 * m;
        parts[m] = matrix[lane % 4 * 2][lane / 4] | (unsigned)matrix[lane % 4 * 2 + 1][lane / 4] << 16;
    }
    __syncwarp();
#endif
}

// sums += a b for 16 x 8 sums and 32 bytes of k. Lane 4 i + j has: of a, rows i, i + 8, i, i + 8, the elements of word j,
// j, j + 4, j + 4 of its 32 bytes; of b, column i, words j and j + 4; of the sums, row i columns 2 j and 2 j + 1, then
// row i + 8.
__device__ inline void multiply(float* sums, const unsigned* a, const unsigned* b) {
#ifdef __CUDA_ARCH__
    if (sizeof(element) == 2) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#else
    static unsigned words[BLOCK][6];
    const int t = threadIdx.x, lane = t % 32, warp = t - lane;
    for (int i = 0; i < 6; i++) words[t][i] = i < 4 ? a[i] : b[i - 4];
    __syncwarp();
    for (int s = 0; s < 4; s++) {
        for (int word = 0; word < 8; word++) {
            const unsigned u = words[warp + lane / 4 * 4 + word % 4][s / 2 + word / 4 * 2];
            const unsigned v = words[warp + (lane % 4 * 2 + s % 2) * 4 + word % 4][4 + word / 4];
            if (sizeof(element) == 2) {
                sums[s] += __uint_as_float(u << 16) * __uint_as_float(v << 16);
                sums[s] += __uint_as_float(u & 0xffff0000u) * __uint_as_float(v & 0xffff0000u);
            } else {
                sums[s] += __uint_as_float(u) * __uint_as_float(v);
            }
        }
    }
    __syncwarp();
#endif
}

// Brings pieces of an operand to shared memory: LINES lines by STEPS steps, in rows of what lies side by side, padded so
// that the threads of a warp read from different banks. A thread loads a vector of every APART-th row.
template <typename Source, int LINES>
struct VectorLoader {
    static const int ALONG = (Source::ALONG_STEPS ? STEPS : LINES) / VECTOR;  // vectors of a row
    static const int PITCH = ALONG + (Source::ALONG_STEPS || sizeof(element) == 2 ? 1 : 2);
    static const int APART = BLOCK / ALONG, COUNT = (Source::ALONG_STEPS ? LINES : STEPS) / APART;
    typename Source::Line lines[Source::ALONG_STEPS ? COUNT : 1];

    // Lines behind the last are that: nobody looks at its products there.
    __device__ VectorLoader(const Source& source, index_t from, index_t end) {
        const int t = threadIdx.x;
        if (Source::ALONG_STEPS) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) lines[i] = source.line(smaller(from + t / ALONG + i * APART, end - 1));
        } else {
            lines[0] = source.line(smaller(from + t % ALONG * VECTOR, (end - 1) / VECTOR * VECTOR));
        }
    }

    // Steps from `last` on are 0.
    __device__ void start(const Source& source, Vector* piece, index_t first, index_t last) const {
        const int t = threadIdx.x;
        Vector* place = piece + t / ALONG * PITCH + t % ALONG;
        if (Source::ALONG_STEPS) {
            const index_t k = first + t % ALONG * VECTOR;
            const typename Source::Step step = source.step(k);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                start_copy(place + i * APART * PITCH, k < last ? source.at(lines[i], step) : nullptr);
        } else {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const index_t k = first + t / ALONG + i * APART;
                start_copy(place + i * APART * PITCH, k < last ? source.at(lines[0], source.step(k)) : nullptr);
            }
        }
    }

    // The words that `multiply` takes, for 16 lines from `line` on and the 32 bytes of k number `part`: of lines i and
    // i + 8 words j, then of both words j + 4.
    __device__ static void words(unsigned* to, const Vector* piece, int line, int part) {
        const int lane = threadIdx.x % 32, i = lane / 4, j = lane % 4;
        if (Source::ALONG_STEPS) {
            const unsigned* from = (const unsigned*)(piece + (line + i) * PITCH) + part * 8 + j;
            to[0] = from[0];
            to[1] = from[8 * PITCH * 4];
            to[2] = from[4];
            to[3] = from[8 * PITCH * 4 + 4];
        } else if (sizeof(element) == 2) {
            const Vector* row = piece + (part * 16 + lane / 16 * 8 + lane % 8) * PITCH;
            load_transposed(to, (const unsigned short*)row + line + lane / 8 % 2 * 8);
        } else {
            const unsigned* from = (const unsigned*)(piece + (part * 8 + j) * PITCH) + line + i;
            to[0] = from[0];
            to[1] = from[8];
            to[2] = from[4 * PITCH * 4];
            to[3] = from[4 * PITCH * 4 + 8];
        }
    }
};

// One tile.
template <int ROWS, typename A, typename B>
__device__ void tensor_tile(const A& a, const B& b, const Output& c, index_t rows, index_t columns, const Tile& tile,
                            Vector* room) {
    const int HIGH = ROWS / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int y = warp / 4 * (ROWS / 2), x = warp % 4 * 32;
    VectorLoader<A, ROWS> a_loader(a, tile.top, rows);
    VectorLoader<B, WIDE> b_loader(b, tile.left, columns);
    float sums[HIGH][4][4] = {};
    Vector *piece = room, *next = room + 2 * STAGE;
    if (tile.first < tile.last) {
        a_loader.start(a, piece, tile.first, tile.last);
        b_loader.start(b, piece + STAGE, tile.first, tile.last);
    }
    for (index_t k = tile.first; k < tile.last; k += STEPS) {
        finish_copies();
        __syncthreads();  // the piece is whole, and nobody looks at the other any more
        if (k + STEPS < tile.last) {
            a_loader.start(a, next, k + STEPS, tile.last);
            b_loader.start(b, next + STAGE, k + STEPS, tile.last);
        }
#pragma unroll
        for (int part = 0; part < 2; part++) {
            unsigned u[HIGH][4], v[2][4];
#pragma unroll
            for (int i = 0; i < HIGH; i++) a_loader.words(u[i], piece, y + 16 * i, part);
#pragma unroll
            for (int j = 0; j < 2; j++) b_loader.words(v[j], piece + STAGE, x + 16 * j, part);
#pragma unroll
            for (int i = 0; i < HIGH; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const unsigned column[2] = {v[j / 2][j % 2], v[j / 2][j % 2 + 2]};
                    multiply(sums[i][j], u[i], column);
                }
        }
        Vector* done = piece;
        piece = next;
        next = done;
    }
#pragma unroll
    for (int i = 0; i < HIGH; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int s = 0; s < 4; s++) {
                const index_t row = tile.top + y + 16 * i + s / 2 * 8 + lane / 4;
                const index_t column = tile.left + x + 8 * j + lane % 4 * 2 + s % 2;
                if (row < rows && column < columns) c.put(row, column, sums[i][j][s]);
            }
}

// a_of and b_of: from a group to a source.
template <typename OfA, typename OfB>
__device__ void tensor_products(OfA a_of, OfB b_of, PRODUCTS) {
    __shared__ Vector room[4 * STAGE];
    const int high = rows > 64 ? 128 : 64;
    const Tile tile(high, WIDE, STEPS, rows, columns, depth, groups, slices);
    const auto a = a_of(tile.group);
    const auto b = b_of(tile.group);
    auto make = [&](const Output& c) {
        if (rows > 64) {
            tensor_tile<128>(a, b, c, rows, columns, tile, room);
        } else {
            tensor_tile<64>(a, b, c, rows, columns, tile, room);
        }
    };
    finish_tile(tile, high, WIDE, make, THESE_PRODUCTS);
}
