// The parts of our operations that are no matrix products, for NVIDIA's GPUs. The driver's compiler (NVRTC) makes them
// when the first one is used, so there is nothing to include. What they compute is in the Rust file of each operation,
// under the same names; every value is computed as f32, whatever type T it is kept in.
//
// A kernel takes its inputs, its output, its sizes and its numbers, in this order. It works either on single values
// (THREAD_OF_ALL) or on rows, a block of threads for each.

// The threads of a block: mod.rs starts as many. A power of two.
#ifndef THREADS
#define THREADS 256
#endif

// A bf16, which is the upper half of an f32.
struct Bf16 {
    unsigned short bits;
};

__device__ inline float get(const float *values, size_t at) { return values[at]; }

__device__ inline float get(const Bf16 *values, size_t at) {
    return __uint_as_float((unsigned int)values[at].bits << 16);
}

__device__ inline void put(float *values, size_t at, float value) { values[at] = value; }

// To the nearest, and to the even one of two that are as near. What is no number stays none.
__device__ inline void put(Bf16 *values, size_t at, float value) {
    unsigned int bits = __float_as_uint(value);
    bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    values[at].bits = number ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0u;
}

// The sum, or the largest, of what all threads of a block give. All of them get it.
template <bool LARGEST> __device__ float together(float value) {
    __shared__ float parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            float a = parts[threadIdx.x], b = parts[threadIdx.x + half];
            parts[threadIdx.x] = LARGEST ? fmaxf(a, b) : a + b;
        }
        __syncthreads();
    }
    value = parts[0];
    // Nobody may write anew before all have read.
    __syncthreads();
    return value;
}

__device__ inline float sum(float value) { return together<false>(value); }
__device__ inline float largest(float value) { return together<true>(value); }

// A thread's columns of its block's row.
#define FOR_COLUMNS(i, width) for (size_t i = threadIdx.x; i < (width); i += THREADS)

#define NEGATIVE_INFINITY __uint_as_float(0xff800000u)

// ---- single values ----

#define THREAD_OF_ALL ((size_t)blockIdx.x * THREADS + threadIdx.x)

struct Silu {
    __device__ static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
    __device__ static float value(float x) { return x * sigmoid(x); }
    __device__ static float slope(float x) { return sigmoid(x) * (1.0f + x * (1.0f - sigmoid(x))); }
};

struct Gelu {
    __device__ static float distribution(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
    __device__ static float value(float x) { return x * distribution(x); }
    __device__ static float slope(float x) { return distribution(x) + x * 0.39894228f * expf(-0.5f * x * x); }
};

struct GeluTanh {
    __device__ static float bend(float x) { return 0.79788456f * (x + 0.044715f * x * x * x); }
    __device__ static float value(float x) { return 0.5f * x * (1.0f + tanhf(bend(x))); }
    __device__ static float slope(float x) {
        float t = tanhf(bend(x));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
    }
};

template <class F, class T> __device__ void pointwise(const T *x, T *y, size_t count) {
    size_t at = THREAD_OF_ALL;
    if (at < count) put(y, at, F::value(get(x, at)));
}

template <class F, class T> __device__ void pointwise_back(const T *x, const T *g, T *dx, size_t count) {
    size_t at = THREAD_OF_ALL;
    if (at < count) put(dx, at, get(g, at) * F::slope(get(x, at)));
}

// Heads of `size` values; from one token to the next there are `step` values. `direction` is -1 for the rotation back.
template <class T>
__device__ void rotary(const T *x, const float *frequencies, T *y, size_t count, size_t tokens, size_t step, size_t size,
                       size_t pairs, size_t first, float direction) {
    size_t at = THREAD_OF_ALL;
    if (at >= count) return;
    size_t column = at % size;
    if (column >= 2 * pairs) {
        put(y, at, get(x, at));
        return;
    }
    bool left = column < pairs;
    float angle = (float)(first + at / step % tokens) * frequencies[left ? column : column - pairs];
    float turned = direction * sinf(angle);
    float other = left ? -get(x, at + pairs) : get(x, at - pairs);
    put(y, at, get(x, at) * cosf(angle) + other * turned);
}

// ---- rows ----

// Softmax over the columns from `start` to `end`; the others become 0.
template <class T, class S> __device__ void softmax_part(S score, T *y, size_t width, size_t start, size_t end) {
    float most = NEGATIVE_INFINITY;
    FOR_COLUMNS(i, width) if (i >= start && i < end) most = fmaxf(most, score(i));
    most = largest(most);
    float total = 0.0f;
    FOR_COLUMNS(i, width) if (i >= start && i < end) total += expf(score(i) - most);
    total = sum(total);
    FOR_COLUMNS(i, width) put(y, i, i >= start && i < end ? expf(score(i) - most) / total : 0.0f);
}

template <class T> __device__ void softmax(const T *x, T *y, size_t width) {
    x += blockIdx.x * width;
    softmax_part([=](size_t i) { return get(x, i); }, y + blockIdx.x * width, width, 0, width);
}

template <class T> __device__ float inverse_size(const T *x, size_t width, float epsilon) {
    float squares = 0.0f;
    FOR_COLUMNS(i, width) squares += get(x, i) * get(x, i);
    return 1.0f / sqrtf(sum(squares) / width + epsilon);
}

template <class T> __device__ void rms_norm(const T *x, const float *weight, T *y, size_t width, float epsilon) {
    x += blockIdx.x * width, y += blockIdx.x * width;
    float inverse = inverse_size(x, width, epsilon);
    FOR_COLUMNS(i, width) put(y, i, get(x, i) * inverse * weight[i]);
}

template <class T>
__device__ void rms_norm_back(const T *x, const float *weight, const T *g, T *dx, size_t width, float epsilon) {
    x += blockIdx.x * width, g += blockIdx.x * width, dx += blockIdx.x * width;
    float inverse = inverse_size(x, width, epsilon);
    float product = 0.0f;
    FOR_COLUMNS(i, width) product += get(g, i) * weight[i] * get(x, i) * inverse;
    product = sum(product) / width;
    FOR_COLUMNS(i, width) put(dx, i, inverse * (get(g, i) * weight[i] - get(x, i) * inverse * product));
}

struct Moments {
    float mean, inverse;
};

template <class T> __device__ Moments moments(const T *x, size_t width, float epsilon) {
    float total = 0.0f;
    FOR_COLUMNS(i, width) total += get(x, i);
    float mean = sum(total) / width;
    float squares = 0.0f;
    FOR_COLUMNS(i, width) squares += (get(x, i) - mean) * (get(x, i) - mean);
    return {mean, 1.0f / sqrtf(sum(squares) / width + epsilon)};
}

// Without weights where there are none.
template <class T>
__device__ void layer_norm(const T *x, const float *weight, const float *bias, T *y, size_t width, float epsilon) {
    x += blockIdx.x * width, y += blockIdx.x * width;
    Moments of = moments(x, width, epsilon);
    FOR_COLUMNS(i, width) {
        float normal = (get(x, i) - of.mean) * of.inverse;
        put(y, i, weight ? normal * weight[i] + bias[i] : normal);
    }
}

template <class T>
__device__ void layer_norm_back(const T *x, const float *weight, const T *g, T *dx, size_t width, float epsilon) {
    x += blockIdx.x * width, g += blockIdx.x * width, dx += blockIdx.x * width;
    Moments of = moments(x, width, epsilon);
    float total = 0.0f, product = 0.0f;
    FOR_COLUMNS(i, width) {
        float h = weight ? get(g, i) * weight[i] : get(g, i);
        total += h;
        product += h * (get(x, i) - of.mean) * of.inverse;
    }
    total = sum(total) / width, product = sum(product) / width;
    FOR_COLUMNS(i, width) {
        float h = weight ? get(g, i) * weight[i] : get(g, i);
        put(dx, i, of.inverse * (h - total - (get(x, i) - of.mean) * of.inverse * product));
    }
}

// ---- attention ----
// Its rows are [inputs and groups, heads of a group, queries], from `first` of the inputs and groups on.

// A score of a product of query and key. No cap is 0.
__device__ inline float score_of(float product, float scale, float cap) {
    float score = product * scale;
    return cap > 0.0f ? cap * tanhf(score / cap) : score;
}

// Weights from products. No window is the largest size, no lengths are null.
template <class T>
__device__ void attention(const T *products, const unsigned int *lengths, T *weights, size_t keys, size_t queries,
                          size_t shared, size_t groups, size_t first, size_t causal, size_t window, float scale,
                          float cap) {
    size_t query = blockIdx.x % queries, input = (first + blockIdx.x / (shared * queries)) / groups;
    size_t start = 0, end = lengths && lengths[input] < keys ? lengths[input] : keys;
    if (causal) {
        // Keys before the first query are those of a past.
        size_t seen = keys + query + 1 > queries ? keys + query + 1 - queries : 0;
        if (seen > window) start = seen - window;
        if (seen < end) end = seen;
    }
    products += blockIdx.x * keys;
    auto score = [=](size_t i) { return score_of(get(products, i), scale, cap); };
    softmax_part(score, weights + blockIdx.x * keys, keys, start, end);
}

// The gradient of products, from products, weights and the gradient of weights. With a scale of 1 and no cap it is that
// of a plain softmax.
template <class T>
__device__ void attention_back(const T *products, const T *weights, const T *g, T *gradient, size_t keys, float scale,
                               float cap) {
    products += blockIdx.x * keys, weights += blockIdx.x * keys, g += blockIdx.x * keys;
    gradient += blockIdx.x * keys;
    float mean = 0.0f;
    FOR_COLUMNS(i, keys) mean += get(weights, i) * get(g, i);
    mean = sum(mean);
    FOR_COLUMNS(i, keys) {
        float bent = cap > 0.0f ? score_of(get(products, i), scale, cap) / cap : 0.0f;
        put(gradient, i, scale * get(weights, i) * (get(g, i) - mean) * (1.0f - bent * bent));
    }
}

// ---- the names that Rust knows: each kernel with its type behind it ----

#define EXPORT_POINTWISE(T, TYPE, F, NAME)                                                                            \
    extern "C" __global__ void NAME##_##TYPE(const T *x, T *y, size_t count) { pointwise<F>(x, y, count); }           \
    extern "C" __global__ void NAME##_back_##TYPE(const T *x, const T *g, T *dx, size_t count) {                      \
        pointwise_back<F>(x, g, dx, count);                                                                           \
    }

#define EXPORT(T, TYPE)                                                                                               \
    EXPORT_POINTWISE(T, TYPE, Silu, silu)                                                                             \
    EXPORT_POINTWISE(T, TYPE, Gelu, gelu)                                                                             \
    EXPORT_POINTWISE(T, TYPE, GeluTanh, gelu_tanh)                                                                    \
    extern "C" __global__ void rotary_##TYPE(const T *x, const float *frequencies, T *y, size_t count, size_t tokens, \
                                             size_t step, size_t size, size_t pairs, size_t first, float direction) { \
        rotary(x, frequencies, y, count, tokens, step, size, pairs, first, direction);                                \
    }                                                                                                                 \
    extern "C" __global__ void softmax_##TYPE(const T *x, T *y, size_t width) { softmax(x, y, width); }               \
    extern "C" __global__ void rms_norm_##TYPE(const T *x, const float *weight, T *y, size_t width, float epsilon) {  \
        rms_norm(x, weight, y, width, epsilon);                                                                       \
    }                                                                                                                 \
    extern "C" __global__ void rms_norm_back_##TYPE(const T *x, const float *weight, const T *g, T *dx, size_t width, \
                                                    float epsilon) {                                                  \
        rms_norm_back(x, weight, g, dx, width, epsilon);                                                              \
    }                                                                                                                 \
    extern "C" __global__ void layer_norm_##TYPE(const T *x, const float *weight, const float *bias, T *y,            \
                                                 size_t width, float epsilon) {                                       \
        layer_norm(x, weight, bias, y, width, epsilon);                                                               \
    }                                                                                                                 \
    extern "C" __global__ void layer_norm_back_##TYPE(const T *x, const float *weight, const T *g, T *dx,             \
                                                      size_t width, float epsilon) {                                  \
        layer_norm_back(x, weight, g, dx, width, epsilon);                                                            \
    }                                                                                                                 \
    extern "C" __global__ void plain_norm_##TYPE(const T *x, T *y, size_t width, float epsilon) {                     \
        layer_norm(x, nullptr, nullptr, y, width, epsilon);                                                           \
    }                                                                                                                 \
    extern "C" __global__ void plain_norm_back_##TYPE(const T *x, const T *g, T *dx, size_t width, float epsilon) {   \
        layer_norm_back(x, nullptr, g, dx, width, epsilon);                                                           \
    }                                                                                                                 \
    extern "C" __global__ void attention_##TYPE(const T *products, T *weights, size_t keys, size_t queries,           \
                                                size_t shared, size_t groups, size_t first, size_t causal,            \
                                                size_t window, float scale, float cap) {                              \
        attention(products, nullptr, weights, keys, queries, shared, groups, first, causal, window, scale, cap);      \
    }                                                                                                                 \
    extern "C" __global__ void padded_attention_##TYPE(const T *products, const unsigned int *lengths, T *weights,    \
                                                       size_t keys, size_t queries, size_t shared, size_t groups,     \
                                                       size_t first, size_t causal, size_t window, float scale,       \
                                                       float cap) {                                                   \
        attention(products, lengths, weights, keys, queries, shared, groups, first, causal, window, scale, cap);      \
    }                                                                                                                 \
    extern "C" __global__ void attention_back_##TYPE(const T *products, const T *weights, const T *g, T *gradient,    \
                                                     size_t keys, float scale, float cap) {                           \
        attention_back(products, weights, g, gradient, keys, scale, cap);                                             \
    }

EXPORT(float, f32)
EXPORT(Bf16, bf16)
