// Convolutions as products whose sources read windows of pictures where they are: nothing is copied into a matrix.
// A tap is a channel of the group and a place in its window, (C/G, KH, KW); a window is one of (N, OH, OW).

// Windows of the pictures x of a group: a pixel of each tap of each window, 0 outside of the picture.
struct Windows {
    const real* x;
    Geometry g;

    __device__ Spot tap(index_t i) const {
        int u = i / g.kw % g.kh * g.dh, v = i % g.kw * g.dw;
        return {i / (g.kh * g.kw) * g.h * g.w + u * g.w + v, u, v};
    }

    __device__ Spot window(index_t i) const {
        int row = i / g.ow % g.oh * g.sh - g.ph, column = i % g.ow * g.sw - g.pw;
        return {i / (g.oh * g.ow) * g.c * g.h * g.w + row * g.w + column, row, column};
    }

    __device__ real pixel(Spot window, Spot tap) const {
        int row = window.row + tap.row, column = window.column + tap.column;
        return row >= 0 && row < g.h && column >= 0 && column < g.w ? x[window.at + tap.at] : 0;
    }
};

struct WindowsByTaps : Windows {
    static const bool ALONG_STEPS = false;
    typedef Spot Line;
    typedef Spot Step;

    __device__ Spot line(index_t i) const { return window(i); }
    __device__ Spot step(index_t k) const { return tap(k); }
    __device__ real at(Spot line, Spot step) const { return pixel(line, step); }
};

struct TapsByWindows : Windows {
    static const bool ALONG_STEPS = true;
    typedef Spot Line;
    typedef Spot Step;

    __device__ Spot line(index_t i) const { return tap(i); }
    __device__ Spot step(index_t k) const { return window(k); }
    __device__ real at(Spot line, Spot step) const { return pixel(step, line); }
};

// The outputs of a group, (O/G, OH, OW), that see a pixel of x by each of their taps (O/G, KH, KW); 0 where none does.
struct PixelsByTaps {
    static const bool ALONG_STEPS = false;
    typedef Spot Line;
    typedef Spot Step;
    const real* gy;
    index_t outputs;  // of all groups
    Geometry g;

    __device__ Spot line(index_t i) const {
        int row = i / g.w % g.h + g.ph, column = i % g.w + g.pw;
        return {i / (g.h * g.w) * outputs * g.oh * g.ow, row, column};
    }

    __device__ Spot step(index_t k) const {
        return {k / (g.kh * g.kw) * g.oh * g.ow, (int)(k / g.kw % g.kh * g.dh), (int)(k % g.kw * g.dw)};
    }

    __device__ real at(Spot line, Spot step) const {
        index_t t = window_at(line.row - step.row, g.sh, g.oh), j = window_at(line.column - step.column, g.sw, g.ow);
        return t >= 0 && j >= 0 ? gy[line.at + step.at + t * g.ow + j] : 0;
    }
};

// A matrix whose steps are in two parts: `inner` of them side by side, and those parts `outer` apart.
struct Parts {
    static const bool ALONG_STEPS = true;
    typedef index_t Line;
    typedef index_t Step;
    const real* a;
    index_t line_apart, inner, outer;

    __device__ index_t line(index_t i) const { return i * line_apart; }
    __device__ index_t step(index_t k) const { return k / inner * outer + k % inner; }
    __device__ real at(index_t line, index_t step) const { return a[line + step]; }
};

KERNEL conv2d(const real* x, const real* weight, GEOMETRY, PRODUCTS) {
    Geometry g = THIS_GEOMETRY;
    products([=](index_t group) { return Parts{weight + group * rows * depth, depth, depth, 0}; },
             [=](index_t group) { return WindowsByTaps{{x + group * (c / groups) * h * w, g}}; }, THESE_PRODUCTS);
}

KERNEL conv2d_grad_input(const real* gy, const real* weight, GEOMETRY, PRODUCTS) {
    Geometry g = THIS_GEOMETRY;
    index_t taps = kh * kw, outputs = depth / taps;
    products([=](index_t group) { return Parts{weight + group * outputs * rows * taps, taps, taps, rows * taps}; },
             [=](index_t group) { return PixelsByTaps{gy + group * outputs * oh * ow, groups * outputs, g}; },
             THESE_PRODUCTS);
}

KERNEL conv2d_grad_weight(const real* gy, const real* x, GEOMETRY, PRODUCTS) {
    Geometry g = THIS_GEOMETRY;
    index_t pixels = oh * ow;
    products([=](index_t group) { return Parts{gy + group * rows * pixels, pixels, pixels, groups * rows * pixels}; },
             [=](index_t group) { return TapsByWindows{{x + group * (c / groups) * h * w, g}}; }, THESE_PRODUCTS);
}

KERNEL sum_channels(const real* x, double* partials, index_t n, index_t c, index_t p, index_t slices) {
    channel_sums(partials, n, c, p, slices, [=](index_t i, index_t) { return Pair{(double)x[i], 0}; });
}
