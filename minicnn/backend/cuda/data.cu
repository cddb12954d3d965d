// A batch from stored pictures, of bytes or of floats: gather, move and normalise at once. Modes: 0 constant, 1 reflect,
// 2 replicate.

// Where the element at a position anywhere of an axis comes from.
__device__ inline index_t place(index_t position, index_t size, index_t mode) {
    if (mode != 1 || size == 1) return position < 0 ? 0 : position < size ? position : size - 1;
    index_t period = 2 * (size - 1);
    position = (position % period + period) % period;
    return position < size ? position : period - position;
}

// The pixel at a position anywhere of a plane.
template <typename pixel_t>
__device__ inline float pixel(const pixel_t* plane, index_t row, index_t col, index_t h, index_t w, index_t mode) {
    if (mode == 0 && (row < 0 || row >= h || col < 0 || col >= w)) return 0;
    return plane[place(row, h, mode) * w + place(col, w, mode)];
}

// How pixels become numbers, and where these go: y is (N, C, H, W) of `count` numbers.
#define LOOKS \
    const float *mean, const float *std, float white, index_t mode, float *y, index_t c, index_t h, index_t w, index_t count
#define THESE_LOOKS mean, std, white, mode, y, c, h, w, count

template <typename pixel_t>
__device__ inline void gather(const pixel_t* images, const long long* index, const bool* flip, const long long* dy,
                              const long long* dx, LOOKS) {
    EACH(i, count);
    index_t col = i % w, row = i / w % h, channel = i / (w * h) % c, n = i / (c * h * w);
    row += (index_t)dy[n];
    col = (flip[n] ? w - 1 - col : col) + (index_t)dx[n];
    float value = pixel(images + ((index_t)index[n] * c + channel) * h * w, row, col, h, w, mode);
    y[i] = value * (1 / (white * std[channel])) - mean[channel] / std[channel];
}

template <typename pixel_t>
__device__ inline void warp(const pixel_t* images, const long long* index, const float* matrix, LOOKS) {
    EACH(i, count);
    index_t col = i % w, row = i / w % h, channel = i / (w * h) % c, n = i / (c * h * w);
    const float* m = matrix + 6 * n;
    float across = m[0] * col + (m[1] * row + m[2]), down = m[3] * col + (m[4] * row + m[5]);
    float left = floorf(across), top = floorf(down);
    const pixel_t* plane = images + ((index_t)index[n] * c + channel) * h * w;
    row = (index_t)top;
    col = (index_t)left;
    float upper = pixel(plane, row, col, h, w, mode), lower = pixel(plane, row + 1, col, h, w, mode);
    upper += (pixel(plane, row, col + 1, h, w, mode) - upper) * (across - left);
    lower += (pixel(plane, row + 1, col + 1, h, w, mode) - lower) * (across - left);
    float value = upper + (lower - upper) * (down - top);
    y[i] = value * (1 / (white * std[channel])) - mean[channel] / std[channel];
}

KERNEL gather_images(const unsigned char* images, const long long* index, const bool* flip, const long long* dy,
                     const long long* dx, LOOKS) {
    gather(images, index, flip, dy, dx, THESE_LOOKS);
}

KERNEL gather_floats(const float* images, const long long* index, const bool* flip, const long long* dy,
                     const long long* dx, LOOKS) {
    gather(images, index, flip, dy, dx, THESE_LOOKS);
}

KERNEL warp_images(const unsigned char* images, const long long* index, const float* matrix, LOOKS) {
    warp(images, index, matrix, THESE_LOOKS);
}

KERNEL warp_floats(const float* images, const long long* index, const float* matrix, LOOKS) {
    warp(images, index, matrix, THESE_LOOKS);
}
