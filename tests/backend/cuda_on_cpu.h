// Enough of CUDA to run a kernel on the CPU, for g++: every block in turn, its threads as fibers that a barrier switches.
// A barrier that some threads of a warp or a block never reach is reported instead of hanging. An order says which block
// comes first, and between barriers which warp and which thread of it: where the order shows in a result, a barrier is
// missing. A warp goes on up to the block's barrier while others have not begun. What a block, or a lane that is not
// asked, leaves to another is junk.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static __attribute__((section("shared_memory")))

// The linker knows where a section of such a name begins and ends; there is none in a unit without shared memory.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_shared_memory[], __stop_shared_memory[];

namespace emulated {

struct Index {
    unsigned x;
};

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t first;  // where it begins
    jmp_buf here;      // where it goes on
    bool started;
    State state;
    unsigned mask;  // of the lanes that it waits for
    char stack[1 << 16];
};

inline std::vector<Fiber> fibers(1024);
inline jmp_buf scheduler;
inline std::function<void()> body;
inline unsigned current;

// The order of things that may come in any: 0 ascending, -1 descending, other numbers are seeds of a random one.
class Order {
    int kind;
    std::mt19937 random;

   public:
    explicit Order(int kind) : kind(kind), random(kind) {}

    // One of so many, the first that comes.
    unsigned pick(unsigned count) { return kind == 0 ? 0 : kind == -1 ? count - 1 : random() % count; }

    std::vector<unsigned> of(unsigned from, unsigned end) {
        std::vector<unsigned> all(end - from);
        std::iota(all.begin(), all.end(), from);
        if (kind == -1) std::reverse(all.begin(), all.end());
        if (kind > 0) std::shuffle(all.begin(), all.end(), random);
        return all;
    }
};

}  // namespace emulated

static emulated::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

__attribute__((noinline)) inline void wait(State state, unsigned mask = 0xffffffffu) {
    fibers[current].state = state;
    fibers[current].mask = mask;
    if (!_setjmp(fibers[current].here)) _longjmp(scheduler, 1);
}

inline void run_thread() {
    body();
    fibers[current].state = DONE;
    _longjmp(scheduler, 1);
}

// Let a thread begin, or go on, until it waits or ends.
__attribute__((noinline)) inline void let_run(unsigned thread) {
    current = threadIdx.x = thread;
    if (_setjmp(scheduler)) return;
    if (fibers[thread].started) _longjmp(fibers[thread].here, 1);
    fibers[thread].started = true;
    setcontext(&fibers[thread].first);
}

// Let the threads of a warp go on that wait for lanes of which all wait for the same, themselves among them. Lanes that a
// short block does not have are not waited for.
inline void release_warp(unsigned first, unsigned end) {
    for (unsigned t = first; t < end; t++) {
        const unsigned mask = fibers[t].mask;
        auto named = [=](unsigned other) { return mask >> (other - first) & 1; };
        bool all = fibers[t].state == AT_WARP && named(t);
        for (unsigned other = first; all && other < end; other++)
            all = !named(other) || (fibers[other].state == AT_WARP && fibers[other].mask == mask);
        for (unsigned other = first; all && other < end; other++)
            if (named(other)) fibers[other].state = READY;
    }
}

// Let the threads of a block go on if all wait at its barrier or are done, and some wait.
inline bool release_block(unsigned threads) {
    bool waiting = false;
    for (unsigned t = 0; t < threads; t++) {
        if (fibers[t].state == AT_BLOCK) waiting = true;
        else if (fibers[t].state != DONE) return false;
    }
    for (unsigned t = 0; waiting && t < threads; t++)
        if (fibers[t].state == AT_BLOCK) fibers[t].state = READY;
    return waiting;
}

inline bool run_block(unsigned threads, Order& order) {
    for (unsigned t = 0; t < threads; t++) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack;
        fiber.first.uc_stack.ss_size = sizeof fiber.stack;
        makecontext(&fiber.first, run_thread, 0);
        fiber.started = false;
        fiber.state = READY;
    }
    if (__start_shared_memory)  // NaN, or large numbers
        memset(__start_shared_memory, order.pick(2) ? 0xff : 0x7e, __stop_shared_memory - __start_shared_memory);
    std::vector<unsigned> ready;  // the first threads of warps
    for (;;) {
        ready.clear();
        for (unsigned t = 0; t < threads; t++)
            if (fibers[t].state == READY && (ready.empty() || ready.back() != t / 32 * 32)) ready.push_back(t / 32 * 32);
        if (ready.empty()) {
            if (release_block(threads)) continue;
            return std::all_of(&fibers[0], &fibers[threads], [](const Fiber& f) { return f.state == DONE; });
        }
        const unsigned first = ready[order.pick(ready.size())], end = std::min(first + 32, threads);
        for (unsigned thread : order.of(first, end))
            if (fibers[thread].state == READY) let_run(thread);
        release_warp(first, end);
    }
}

template <typename... Types, size_t... I>
bool run(void (*kernel)(Types...), unsigned grid, unsigned block, void** arguments, int kind,
         std::index_sequence<I...>) {
    body = [=] { kernel(*(Types*)arguments[I]...); };
    Order order(kind);
    gridDim.x = grid;
    blockDim.x = block;
    for (unsigned index : order.of(0, grid)) {
        blockIdx.x = index;
        if (!run_block(block, order)) return false;
    }
    return true;
}

template <typename... Types>
bool run(void (*kernel)(Types...), unsigned grid, unsigned block, void** arguments, int kind) {
    return run(kernel, grid, block, arguments, kind, std::index_sequence_for<Types...>());
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

inline unsigned lane() { return current % 32; }

// The value of lane `from` of the warp, after every lane of the mask has shown its own.
template <typename T>
T exchange(unsigned mask, T value, unsigned from) {
    static T values[1024];
    values[current] = value;
    wait(AT_WARP, mask);
    const unsigned other = current / 32 * 32 + from;
    if (other < blockDim.x && mask >> from & 1) value = values[other];
    else memset(&value, 0xff, sizeof value);
    wait(AT_WARP, mask);
    return value;
}

}  // namespace emulated

inline void __syncthreads() { emulated::wait(emulated::AT_BLOCK); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::wait(emulated::AT_WARP, mask); }

// Lanes past an end of their part of a warp, `width` wide, keep their own value.
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    unsigned lane = emulated::lane();
    return emulated::exchange(mask, value, lane / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    unsigned lane = emulated::lane(), from = lane ^ bits;
    return emulated::exchange(mask, value, from / width <= lane / width ? from : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned apart, int width = 32) {
    unsigned lane = emulated::lane();
    return emulated::exchange(mask, value, lane % width >= apart ? lane - apart : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned apart, int width = 32) {
    unsigned lane = emulated::lane();
    return emulated::exchange(mask, value, lane % width + apart < width ? lane + apart : lane);
}
inline unsigned __ballot_sync(unsigned mask, int holds) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) votes |= (unsigned)emulated::exchange(mask, holds != 0, lane) << lane;
    return votes;
}

inline void __threadfence() {}

// One thread runs at a time.
inline unsigned atomicAdd(unsigned* place, unsigned value) {
    const unsigned before = *place;
    *place += value;
    return before;
}

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
    extern "C" bool run_##kernel(unsigned grid, unsigned block, void** arguments, int order) {                \
        return emulated::run(kernel, grid, block, arguments, order);                                           \
    }
