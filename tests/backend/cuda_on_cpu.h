// Enough of CUDA to run a kernel on the CPU, for g++: every block in turn, its threads as fibers that a barrier switches.
// A barrier that some threads of a warp or a block never reach is reported instead of hanging. The threads run in
// ascending or descending order between barriers: where the order shows in a result, a barrier is missing.

#include <math.h>
#include <stdint.h>
#include <ucontext.h>

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

namespace emulated {

struct Index {
    unsigned x;
};

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    char stack[1 << 16];
};

inline std::vector<Fiber> fibers(1024);
inline ucontext_t scheduler;
inline std::function<void()> body;
inline unsigned current;

}  // namespace emulated

static emulated::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

inline void wait(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

inline void run_thread() {
    body();
    fibers[current].state = DONE;
}

// Let the threads from `first` up to `last` go on if all of them wait in `state` (or, at a block's barrier, are done).
inline bool release(unsigned first, unsigned last, State state) {
    bool waiting = false;
    for (unsigned t = first; t < last; t++) {
        if (fibers[t].state == state) waiting = true;
        else if (state == AT_WARP || fibers[t].state != DONE) return false;
    }
    for (unsigned t = first; waiting && t < last; t++)
        if (fibers[t].state == state) fibers[t].state = READY;
    return waiting;
}

inline bool run_block(unsigned threads, bool descending) {
    for (unsigned t = 0; t < threads; t++) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = sizeof fiber.stack;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_thread, 0);
        fiber.state = READY;
    }
    for (;;) {
        bool finished = true, released = false;
        for (unsigned k = 0; k < threads; k++) {
            current = descending ? threads - 1 - k : k;
            threadIdx.x = current;
            if (fibers[current].state == READY) swapcontext(&scheduler, &fibers[current].context);
            finished = finished && fibers[current].state == DONE;
        }
        if (finished) return true;
        for (unsigned t = 0; t < threads; t += 32) released = release(t, t + 32, AT_WARP) || released;
        if (!released && !release(0, threads, AT_BLOCK)) return false;
    }
}

template <typename... Types, size_t... I>
bool run(void (*kernel)(Types...), unsigned grid, unsigned block, void** arguments, bool descending,
         std::index_sequence<I...>) {
    body = [=] { kernel(*(Types*)arguments[I]...); };
    gridDim.x = grid;
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
        if (!run_block(block, descending)) return false;
    return true;
}

template <typename... Types>
bool run(void (*kernel)(Types...), unsigned grid, unsigned block, void** arguments, bool descending) {
    return run(kernel, grid, block, arguments, descending, std::index_sequence_for<Types...>());
}

// NumPy's name of a type ("f4", "u2"), after P for a pointer.
template <typename T>
std::string type_name() {
    if constexpr (std::is_pointer_v<T>) return "P" + type_name<std::remove_cv_t<std::remove_pointer_t<T>>>();
    else if constexpr (std::is_same_v<T, bool>) return "b1";
    else if constexpr (std::is_class_v<T>) return "V" + std::to_string(sizeof(T));
    else return (std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T));
}

template <typename... Types>
std::string types(void (*)(Types...)) {
    return ((type_name<Types>() + " ") + ...);
}

}  // namespace emulated

inline void __syncthreads() { emulated::wait(emulated::AT_BLOCK); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lane) {
    static T values[1024];
    unsigned t = emulated::current;
    values[t] = value;
    emulated::wait(emulated::AT_WARP);
    value = values[t ^ lane];
    emulated::wait(emulated::AT_WARP);
    return value;
}

inline void __syncwarp() { emulated::wait(emulated::AT_WARP); }

inline unsigned __float_as_uint(float number) {
    unsigned bits;
    __builtin_memcpy(&bits, &number, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float number;
    __builtin_memcpy(&number, &bits, sizeof number);
    return number;
}

inline double __longlong_as_double(long long bits) {
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

#define EXPORT(kernel)                                                                                              \
    extern "C" const char* types_##kernel() {                                                                       \
        static std::string names = emulated::types(kernel);                                                         \
        return names.c_str();                                                                                       \
    }                                                                                                               \
    extern "C" bool run_##kernel(unsigned grid, unsigned block, void** arguments, bool descending) {                \
        return emulated::run(kernel, grid, block, arguments, descending);                                           \
    }
