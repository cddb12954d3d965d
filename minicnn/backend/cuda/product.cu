// Products of matrices, whose elements lie by the distances of lines and of steps; a zero distance repeats a matrix.

#define MATRICES                                                                                                      \
    const real *a, const real *b, index_t a_group, index_t a_line, index_t a_step, index_t b_group, index_t b_line, \
        index_t b_step

template <bool ALONG>
struct Matrix {
    static const bool ALONG_STEPS = ALONG;
    typedef index_t Line;
    typedef index_t Step;
    const real* a;
    index_t line_apart, step_apart;

    __device__ Line line(index_t i) const { return i * line_apart; }
    __device__ Step step(index_t k) const { return k * step_apart; }
    __device__ real at(Line line, Step step) const { return a[line + step]; }
};

template <bool A_ALONG, bool B_ALONG>
__device__ void matrix_products(MATRICES, PRODUCTS) {
    products([=](index_t group) { return Matrix<A_ALONG>{a + group * a_group, a_line, a_step}; },
             [=](index_t group) { return Matrix<B_ALONG>{b + group * b_group, b_line, b_step}; }, THESE_PRODUCTS);
}

#define THESE_MATRICES a, b, a_group, a_line, a_step, b_group, b_line, b_step

// By what lies side by side, of A and of B: lines or steps.
KERNEL product_of_lines_and_lines(MATRICES, PRODUCTS) { matrix_products<false, false>(THESE_MATRICES, THESE_PRODUCTS); }

KERNEL product_of_lines_and_steps(MATRICES, PRODUCTS) { matrix_products<false, true>(THESE_MATRICES, THESE_PRODUCTS); }

KERNEL product_of_steps_and_lines(MATRICES, PRODUCTS) { matrix_products<true, false>(THESE_MATRICES, THESE_PRODUCTS); }

KERNEL product_of_steps_and_steps(MATRICES, PRODUCTS) { matrix_products<true, true>(THESE_MATRICES, THESE_PRODUCTS); }
