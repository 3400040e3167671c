// Checks what the kernels compute where there is no GPU: the same source as a C++ program, in which a block's threads
// are threads of the CPU (fewer, so that it takes seconds), and blocks follow one another. Values are compared with the
// definitions in f64, gradients with finite differences of those. What this can't see: how a GPU orders memory, and how
// Rust starts the kernels.
//
//     c++ -std=c++20 -O1 -pthread -o emulated emulated.cpp && ./emulated

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

// ---- what a GPU's compiler knows by itself ----

struct Place {
    unsigned int x;
};
static thread_local Place threadIdx;
static Place blockIdx;
#define THREADS 8
static std::barrier<> block_barrier(THREADS);

static void __syncthreads() { block_barrier.arrive_and_wait(); }

static float __uint_as_float(unsigned int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned int __float_as_uint(float value) {
    unsigned int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

#define __global__
#define __device__
#define __shared__ static
#include "kernels.cu"

// Runs a kernel, called by `body`, in so many blocks.
template <class Body> static void launch(size_t blocks, Body body) {
    std::vector<std::thread> threads;
    for (unsigned int thread = 0; thread < THREADS; thread++) {
        threads.emplace_back([=] {
            threadIdx.x = thread;
            for (size_t block = 0; block < blocks; block++) {
                __syncthreads();
                if (thread == 0) blockIdx.x = block;
                __syncthreads();
                body();
            }
        });
    }
    for (auto &thread : threads) thread.join();
}

// ---- what is compared ----

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Function = std::function<Doubles(const Doubles &)>;

static std::mt19937 generator(1);
static int failures = 0;

static Floats noise(size_t count) {
    std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
    Floats values(count);
    for (auto &value : values) value = uniform(generator);
    return values;
}

static Doubles wide(const Floats &values) { return Doubles(values.begin(), values.end()); }

static void expect(const std::string &name, const Floats &ours, const Doubles &theirs, double most = 2e-5) {
    double worst = 0.0;
    for (size_t i = 0; i < ours.size(); i++) {
        double error = std::fabs(ours[i] - theirs[i]) / (1.0 + std::fabs(theirs[i]));
        if (!(error <= worst)) worst = error;
    }
    bool good = ours.size() == theirs.size() && worst <= most;
    failures += !good;
    if (!good) std::printf("%s is off by %.1e, may be by %.1e\n", name.c_str(), worst, most);
}

// The gradient of sum(outer f(x)) at x.
static Doubles slope(const Function &f, const Floats &x, const Floats &outer) {
    const double step = 1e-5;
    Doubles gradient, at = wide(x);
    for (size_t i = 0; i < x.size(); i++) {
        auto moved = [&](double by) {
            at[i] = x[i] + by;
            Doubles y = f(at);
            at[i] = x[i];
            return y;
        };
        Doubles right = moved(step), left = moved(-step);
        double sum = 0.0;
        for (size_t j = 0; j < right.size(); j++) sum += outer[j] * (right[j] - left[j]);
        gradient.push_back(sum / (2.0 * step));
    }
    return gradient;
}

static size_t blocks_of(size_t values) { return (values + THREADS - 1) / THREADS; }

// ---- bf16 ----

static void check_bf16() {
    for (int i = 0; i < 100000; i++) {
        float value = __uint_as_float(generator());
        Bf16 kept;
        put(&kept, 0, value);
        float back = get(&kept, 0);
        if (std::isnan(value)) {
            failures += !std::isnan(back);
            continue;
        }
        // The two neighbours, in f64, where what is beyond the largest is a number too.
        unsigned int bits = __float_as_uint(value), below = bits & 0xffff0000u;
        double low = __uint_as_float(below), high = __uint_as_float(below + 0x10000u);
        if (std::isinf(high)) high = std::copysign(std::ldexp(1.0, 128), low);
        double to_low = std::fabs(value - low), to_high = std::fabs(high - value);
        bool up = to_high < to_low || (to_high == to_low && (bits >> 16 & 1));
        if (std::isinf(value)) up = false;
        if (kept.bits != (up ? (below >> 16) + 1 : below >> 16)) {
            std::printf("%g as bf16 is %g\n", value, back);
            failures++;
        }
    }
    // One kernel with values of this type stands for all: only `get` and `put` know it.
    Floats x = noise(300), y;
    std::vector<Bf16> kept(x.size()), made(x.size());
    for (size_t i = 0; i < x.size(); i++) put(kept.data(), i, x[i]);
    launch(blocks_of(x.size()), [&] { silu_bf16(kept.data(), made.data(), x.size()); });
    Doubles theirs;
    for (size_t i = 0; i < x.size(); i++) {
        double value = get(kept.data(), i);
        y.push_back(get(made.data(), i));
        theirs.push_back(value / (1.0 + std::exp(-value)));
    }
    expect("silu of bf16", y, theirs, 4e-3);
}

// ---- single values ----

using Forward = void (*)(const float *, float *, size_t);
using Backward = void (*)(const float *, const float *, float *, size_t);

static void check_pointwise(const char *name, Forward forward, Backward backward, double (*f)(double)) {
    Floats x = noise(700), outer = noise(700), y(700), dx(700);
    launch(blocks_of(700), [&] { forward(x.data(), y.data(), 700); });
    launch(blocks_of(700), [&] { backward(x.data(), outer.data(), dx.data(), 700); });
    auto all = [&](const Doubles &x) {
        Doubles y;
        for (double value : x) y.push_back(f(value));
        return y;
    };
    expect(name, y, all(wide(x)));
    expect(std::string(name) + " backward", dx, slope(all, x, outer));
}

// Of heads `[heads, tokens, size]`, or with `inside` `[tokens, heads, size]`.
static void check_rotary(size_t size, bool inside) {
    const size_t tokens = 9, pairs = 3, first = 5, heads = 4, count = heads * tokens * size;
    const size_t step = inside ? heads * size : size;
    const float frequencies[pairs] = {1.0f, 0.3f, 0.01f};
    Floats x = noise(count), outer = noise(count), y(count), dx(count);
    auto turn = [&](const Doubles &x) {
        Doubles y = x;
        for (size_t row = 0; row < heads * tokens; row++) {
            for (size_t pair = 0; pair < pairs; pair++) {
                size_t token = inside ? row / heads : row % tokens;
                double angle = double(first + token) * frequencies[pair];
                size_t left = row * size + pair, right = left + pairs;
                y[left] = x[left] * std::cos(angle) - x[right] * std::sin(angle);
                y[right] = x[right] * std::cos(angle) + x[left] * std::sin(angle);
            }
        }
        return y;
    };
    auto run = [&](const Floats &from, Floats &to, float direction) {
        launch(blocks_of(count), [&] {
            rotary_f32(from.data(), frequencies, to.data(), count, tokens, step, size, pairs, first, direction);
        });
    };
    run(x, y, 1.0f);
    run(outer, dx, -1.0f);
    expect("rotary", y, turn(wide(x)));
    expect("rotary backward", dx, slope(turn, x, outer));
}

// ---- rows ----

static void check_softmax(size_t width) {
    Floats x = noise(3 * width), y(x.size());
    launch(3, [&] { softmax_f32(x.data(), y.data(), width); });
    Doubles theirs;
    for (size_t row = 0; row < 3; row++) {
        double sum = 0.0;
        for (size_t i = 0; i < width; i++) sum += std::exp(double(x[row * width + i]));
        for (size_t i = 0; i < width; i++) theirs.push_back(std::exp(double(x[row * width + i])) / sum);
    }
    expect("softmax", y, theirs);
}

// A norm's definition: with or without the mean taken away, weight and bias.
static Function norm(size_t width, double epsilon, bool centred, const Floats &weight, const Floats &bias) {
    return [=](const Doubles &x) {
        Doubles y;
        for (size_t row = 0; row < x.size(); row += width) {
            double mean = 0.0, square = 0.0;
            for (size_t i = 0; i < width && centred; i++) mean += x[row + i] / width;
            for (size_t i = 0; i < width; i++) square += (x[row + i] - mean) * (x[row + i] - mean) / width;
            for (size_t i = 0; i < width; i++) {
                double normal = (x[row + i] - mean) / std::sqrt(square + epsilon);
                y.push_back(normal * (weight.empty() ? 1.0 : weight[i]) + (bias.empty() ? 0.0 : bias[i]));
            }
        }
        return y;
    };
}

static void check_norms(size_t width) {
    const size_t rows = 2;
    const float epsilon = 1e-3f;
    Floats x = noise(rows * width), outer = noise(rows * width), y(x.size()), dx(x.size());
    Floats weight = noise(width), bias = noise(width);
    const float *w = weight.data(), *b = bias.data(), *g = outer.data();
    auto check = [&](const char *name, const Function &theirs) {
        expect(name, y, theirs(wide(x)));
        expect(std::string(name) + " backward", dx, slope(theirs, x, outer));
    };
    launch(rows, [&] { rms_norm_f32(x.data(), w, y.data(), width, epsilon); });
    launch(rows, [&] { rms_norm_back_f32(x.data(), w, g, dx.data(), width, epsilon); });
    check("rms norm", norm(width, epsilon, false, weight, {}));
    launch(rows, [&] { layer_norm_f32(x.data(), w, b, y.data(), width, epsilon); });
    launch(rows, [&] { layer_norm_back_f32(x.data(), w, g, dx.data(), width, epsilon); });
    check("layer norm", norm(width, epsilon, true, weight, bias));
    launch(rows, [&] { plain_norm_f32(x.data(), y.data(), width, epsilon); });
    launch(rows, [&] { plain_norm_back_f32(x.data(), g, dx.data(), width, epsilon); });
    check("plain norm", norm(width, epsilon, true, {}, {}));
}

// ---- attention: the kernels, with the matrix products between them done here ----

struct Shape {
    size_t inputs, heads, groups, queries, keys;
    bool causal;
    size_t window;
    float cap;
    std::vector<unsigned int> lengths;
    // Inputs and groups that are computed together.
    size_t tile;
    static constexpr size_t size = 4;
    static constexpr float scale = 0.35f;

    size_t shared() const { return heads / groups; }
    size_t rows() const { return shared() * queries; }
};

// The definition, head by head.
static Doubles attend(const Shape &s, const Doubles &query, const Doubles &key, const Doubles &value) {
    Doubles y(query.size());
    for (size_t head = 0; head < s.inputs * s.heads; head++) {
        size_t own = s.lengths.empty() ? s.keys : std::min<size_t>(s.lengths[head / s.heads], s.keys);
        for (size_t i = 0; i < s.queries; i++) {
            const double *q = &query[(head * s.queries + i) * s.size];
            size_t offset = head / s.shared() * s.keys * s.size;
            auto sees = [&](size_t j) {
                // Where the last query stands at the last key's place.
                long place = long(i) + long(s.keys) - long(s.queries);
                bool near = s.window == size_t(-1) || long(j) + long(s.window) > place;
                return j < own && (!s.causal || (long(j) <= place && near));
            };
            auto score = [&](size_t j) {
                double product = 0.0;
                for (size_t c = 0; c < s.size; c++) product += q[c] * key[offset + j * s.size + c];
                return s.cap > 0.0f ? s.cap * std::tanh(product * s.scale / s.cap) : product * s.scale;
            };
            double sum = 0.0;
            for (size_t j = 0; j < s.keys; j++) sum += sees(j) ? std::exp(score(j)) : 0.0;
            for (size_t j = 0; j < s.keys; j++) {
                for (size_t c = 0; c < s.size && sees(j); c++) {
                    y[(head * s.queries + i) * s.size + c] += std::exp(score(j)) / sum * value[offset + j * s.size + c];
                }
            }
        }
    }
    return y;
}

static void check_attention(const Shape &s) {
    const size_t batches = s.inputs * s.groups, rows = s.rows(), keys = s.keys, size = s.size;
    Floats query = noise(batches * rows * size), key = noise(batches * keys * size), value = noise(key.size());
    Floats outer = noise(query.size()), y(query.size()), dquery(query.size()), dkey(key.size()), dvalue(key.size());
    for (size_t first = 0; first < batches; first += s.tile) {
        const size_t tile = std::min(s.tile, batches - first);
        Floats products(tile * rows * keys), weights(products.size()), dweights(products.size()), back(products.size());
        // Calls `f` with the places of a score, and of a value of its query and its key.
        auto each = [&](auto f) {
            for (size_t row = 0; row < tile * rows; row++) {
                for (size_t j = 0; j < keys; j++) {
                    for (size_t c = 0; c < size; c++) {
                        size_t batch = first + row / rows;
                        f(row * keys + j, (first * rows + row) * size + c, (batch * keys + j) * size + c);
                    }
                }
            }
        };
        each([&](size_t score, size_t q, size_t k) {
            products[score] += query[q] * key[k];
            dweights[score] += outer[q] * value[k];
        });
        launch(tile * rows, [&] {
            if (s.lengths.empty()) {
                attention_f32(products.data(), weights.data(), keys, s.queries, s.shared(), s.groups, first, s.causal,
                              s.window, s.scale, s.cap);
            } else {
                padded_attention_f32(products.data(), s.lengths.data(), weights.data(), keys, s.queries, s.shared(),
                                     s.groups, first, s.causal, s.window, s.scale, s.cap);
            }
        });
        launch(tile * rows, [&] {
            attention_back_f32(products.data(), weights.data(), dweights.data(), back.data(), keys, s.scale, s.cap);
        });
        each([&](size_t score, size_t q, size_t k) {
            y[q] += weights[score] * value[k];
            dquery[q] += back[score] * key[k];
            dkey[k] += back[score] * query[q];
            dvalue[k] += weights[score] * outer[q];
        });
    }
    Doubles q = wide(query), k = wide(key), v = wide(value);
    expect("attention", y, attend(s, q, k, v));
    auto of = [&](const Doubles &q, const Doubles &k, const Doubles &v) { return attend(s, q, k, v); };
    expect("attention's queries", dquery, slope([&](auto &x) { return of(x, k, v); }, query, outer), 1e-4);
    expect("attention's keys", dkey, slope([&](auto &x) { return of(q, x, v); }, key, outer), 1e-4);
    expect("attention's values", dvalue, slope([&](auto &x) { return of(q, k, x); }, value, outer), 1e-4);
}

int main() {
    check_bf16();
    check_pointwise("silu", silu_f32, silu_back_f32, [](double x) { return x / (1.0 + std::exp(-x)); });
    check_pointwise("gelu", gelu_f32, gelu_back_f32, [](double x) {
        return 0.5 * x * (1.0 + std::erf(x * M_SQRT1_2));
    });
    check_pointwise("gelu by tanh", gelu_tanh_f32, gelu_tanh_back_f32, [](double x) {
        return 0.5 * x * (1.0 + std::tanh(std::sqrt(M_2_PI) * (x + 0.044715 * x * x * x)));
    });
    for (size_t size : {6, 10}) {
        check_rotary(size, false);
        check_rotary(size, true);
    }
    for (size_t width : {1, 5, 8, 700}) check_softmax(width);
    for (size_t width : {7, 300}) check_norms(width);
    const size_t all = -1;
    for (const Shape &shape : std::vector<Shape>{
             {2, 2, 2, 5, 5, false, all, 0.0f, {}, 4},
             {2, 4, 2, 7, 7, false, all, 0.0f, {3, 7}, 1},
             {1, 4, 2, 9, 9, true, all, 0.0f, {}, 2},
             {2, 2, 1, 9, 9, true, all, 0.0f, {2, 9}, 1},
             // Queries that come after a past, and more queries than keys.
             {1, 2, 2, 2, 9, true, all, 0.0f, {}, 1},
             {1, 2, 1, 5, 3, true, all, 0.0f, {}, 1},
             {1, 4, 2, 12, 12, true, 3, 0.8f, {}, 2},
             // The last query sees nothing.
             {1, 1, 1, 3, 3, true, 1, 0.0f, {1}, 1},
             // More keys than a block has threads.
             {1, 1, 1, 2, 100, false, all, 0.0f, {}, 1},
         }) {
        check_attention(shape);
    }
    std::printf(failures ? "%d checks of the kernels failed\n" : "all kernels are right\n", failures);
    return failures != 0;
}
