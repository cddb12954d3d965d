// Convolutions and fully connected layers on tensor cores. Operands are channels-last: pictures (N, H, W, C), filters
// (O, KH, KW, C/G), rows (N, C), C padded with zeros to a multiple of VECTOR. So a vector is of one tap of one pixel.

// Operands from arrays in the order of the library, (N, C, P): rounded, channels last. A block turns a square of 32
// channels by 32 pixels in shared memory, so that what is read and what is written lies side by side.
KERNEL pack(const float* x, element* y, index_t n, index_t c, index_t p, index_t padded) {
    __shared__ float square[32][33];
    const index_t down = (padded + 31) / 32, across = (p + 31) / 32, block = blockIdx.x;
    const index_t channel = block % down * 32, pixel = block / down % across * 32, picture = block / down / across;
    const int t = threadIdx.x, x_in = t % 32;
    for (int i = t / 32; i < 32; i += BLOCK / 32) {
        const bool inside = channel + i < c && pixel + x_in < p;
        square[i][x_in] = inside ? x[(picture * c + channel + i) * p + pixel + x_in] : 0;
    }
    __syncthreads();
    for (int i = t / 32; i < 32; i += BLOCK / 32)
        if (channel + x_in < padded && pixel + i < p)
            y[(picture * p + pixel + i) * padded + channel + x_in] = rounded(square[x_in][i]);
}

// The same of rows (N, C), one thread an element of y.
KERNEL pack_rows(const float* x, element* y, index_t c, index_t padded, index_t count) {
    EACH(i, count);
    y[i] = i % padded < c ? rounded(x[i / padded * c + i % padded]) : 0;
}

template <bool ALONG>
struct Operand {
    static const bool ALONG_STEPS = ALONG;
    typedef index_t Line;
    typedef index_t Step;
    const element* a;
    index_t line_apart, step_apart;

    __device__ Line line(index_t i) const { return i * line_apart; }
    __device__ Step step(index_t k) const { return k * step_apart; }
    __device__ const element* at(Line line, Step step) const { return a + line + step; }
};

// Windows over the pictures x, of `channels` of their channels: as in conv.cu.
struct PackedWindows {
    const element* x;
    Geometry g;
    index_t channels;

    __device__ Spot tap(index_t i) const {
        const int u = i / channels / g.kw * g.dh, v = i / channels % g.kw * g.dw;
        return {(u * g.w + v) * g.c + i % channels, u, v};
    }

    __device__ Spot window(index_t i) const {
        const int row = i / g.ow % g.oh * g.sh - g.ph, column = i % g.ow * g.sw - g.pw;
        return {((i / (g.oh * g.ow) * g.h + row) * g.w + column) * g.c, row, column};
    }

    __device__ const element* pixel(Spot window, Spot tap) const {
        const int row = window.row + tap.row, column = window.column + tap.column;
        const bool inside = row >= 0 && row < g.h && column >= 0 && column < g.w;
        return inside ? x + window.at + tap.at : nullptr;
    }
};

struct PackedWindowsByTaps : PackedWindows {
    static const bool ALONG_STEPS = true;
    typedef Spot Line;
    typedef Spot Step;

    __device__ Spot line(index_t i) const { return window(i); }
    __device__ Spot step(index_t k) const { return tap(k); }
    __device__ const element* at(Spot line, Spot step) const { return pixel(line, step); }
};

struct PackedTapsByWindows : PackedWindows {
    static const bool ALONG_STEPS = false;
    typedef Spot Line;
    typedef Spot Step;

    __device__ Spot line(index_t i) const { return tap(i); }
    __device__ Spot step(index_t k) const { return window(k); }
    __device__ const element* at(Spot line, Spot step) const { return pixel(step, line); }
};

// The outputs that see a pixel by each tap: as in conv.cu, but of a tap all `outputs` follow each other. They are a part
// of the `pitch` that lie together.
struct PackedPixelsByTaps {
    static const bool ALONG_STEPS = true;
    typedef Spot Line;
    typedef Spot Step;
    const element* gy;
    index_t outputs, pitch;
    Geometry g;

    __device__ Spot line(index_t i) const {
        const int row = i / g.w % g.h + g.ph, column = i % g.w + g.pw;
        return {i / (g.h * g.w) * g.oh * g.ow * pitch, row, column};
    }

    __device__ Spot step(index_t k) const {
        const index_t tap = k / outputs;
        return {k % outputs, (int)(tap / g.kw * g.dh), (int)(tap % g.kw * g.dw)};
    }

    __device__ const element* at(Spot line, Spot step) const {
        const index_t t = window_at(line.row - step.row, g.sh, g.oh), j = window_at(line.column - step.column, g.sw, g.ow);
        return t >= 0 && j >= 0 ? gy + line.at + step.at + (t * g.ow + j) * pitch : nullptr;
    }
};

// Filters, channels by those steps. Only `used` of the outputs have filters, the others are padding.
struct ChannelsByTaps {
    static const bool ALONG_STEPS = false;
    typedef index_t Line;
    typedef index_t Step;
    const element* weight;
    index_t outputs, used, taps, channels;

    __device__ index_t line(index_t i) const { return i; }
    __device__ index_t step(index_t k) const {
        const index_t output = k % outputs;
        return output < used ? (output * taps + k / outputs) * channels : -1;
    }
    __device__ const element* at(index_t line, index_t step) const { return step < 0 ? nullptr : weight + line + step; }
};

// c of the geometry is that of x with its padding, `outputs` that of y, both of all groups.
KERNEL conv2d(const element* x, const element* weight, GEOMETRY, PRODUCTS) {
    const Geometry g = THIS_GEOMETRY;
    tensor_products([=](index_t group) { return Operand<true>{weight + group * rows * depth, depth, 1}; },
                    [=](index_t group) { return PackedWindowsByTaps{{x + group * (c / groups), g, c / groups}}; },
                    THESE_PRODUCTS);
}

KERNEL conv2d_grad_input(const element* gy, const element* weight, index_t outputs, index_t used, GEOMETRY, PRODUCTS) {
    const Geometry g = THIS_GEOMETRY;
    const index_t together = outputs / groups, channels = c / groups, taps = kh * kw;
    tensor_products(
        [=](index_t group) {
            return ChannelsByTaps{weight + group * used * taps * channels, together, used, taps, channels};
        },
        [=](index_t group) { return PackedPixelsByTaps{gy + group * together, together, outputs, g}; }, THESE_PRODUCTS);
}

KERNEL conv2d_grad_weight(const element* gy, const element* x, index_t outputs, GEOMETRY, PRODUCTS) {
    const Geometry g = THIS_GEOMETRY;
    tensor_products([=](index_t group) { return Operand<false>{gy + group * (outputs / groups), 1, outputs}; },
                    [=](index_t group) { return PackedTapsByWindows{{x + group * (c / groups), g, c / groups}}; },
                    THESE_PRODUCTS);
}

KERNEL linear(const element* x, const element* weight, index_t inputs, PRODUCTS) {
    tensor_products([=](index_t) { return Operand<true>{weight, inputs, 1}; },
                    [=](index_t) { return Operand<true>{x, inputs, 1}; }, THESE_PRODUCTS);
}

KERNEL linear_grad_input(const element* gy, const element* weight, index_t outputs, index_t inputs, PRODUCTS) {
    tensor_products([=](index_t) { return Operand<true>{gy, outputs, 1}; },
                    [=](index_t) { return Operand<false>{weight, 1, inputs}; }, THESE_PRODUCTS);
}

KERNEL linear_grad_weight(const element* gy, const element* x, index_t outputs, index_t inputs, PRODUCTS) {
    tensor_products([=](index_t) { return Operand<false>{gy, 1, outputs}; },
                    [=](index_t) { return Operand<false>{x, 1, inputs}; }, THESE_PRODUCTS);
}
