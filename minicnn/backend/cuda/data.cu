// A batch from stored pictures: gather, shift, flip and normalise at once.

__device__ inline index_t reflect(index_t position, index_t size) {
    if (position < 0) position = -position;
    return position < size ? position : 2 * (size - 1) - position;
}

KERNEL gather_images(const unsigned char* images, const long long* index, const bool* flip, const long long* dy,
                     const long long* dx, const float* mean, const float* std, index_t constant, float* y, index_t c,
                     index_t h, index_t w, index_t count) {
    EACH(i, count);
    index_t col = i % w, row = i / w % h, channel = i / (w * h) % c, n = i / (c * h * w);
    row += (index_t)dy[n];
    col = (flip[n] ? w - 1 - col : col) + (index_t)dx[n];
    bool outside = row < 0 || row >= h || col < 0 || col >= w;
    index_t pixel = (((index_t)index[n] * c + channel) * h + reflect(row, h)) * w + reflect(col, w);
    float value = constant && outside ? 0.0f : (float)images[pixel];
    y[i] = value * (1 / (255 * std[channel])) - mean[channel] / std[channel];
}
