/* The types that all of the kernel shares, and `_product.h` for each instruction set: which are there is found at
 * run time.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STEP 16
/* Floats of a line of the cache. */
#define LINE 16
#define WIDEST 64
#define BLOCK_NAME "fsdcore.kernels.Block"

enum { IDENTITY_, RELU_, CLIPPED_RELU_, LEAKY_RELU_, ACTIVATIONS };

/* Rows that share their indices: `rows` of them from `first` in the visiting order. Weights lie k by k, row by row. */
typedef struct {
    uint32_t indices, weights;
    int32_t first;
    uint32_t length : 28, rows : 4;
} Group;

#define LONGEST_ROW ((1 << 28) - 1)

typedef struct {
    int64_t rows, width, bytes;
    int32_t group_count;
    int near_indices;
    Group *groups;
    int32_t *order;
    float *weights;
    uint16_t *near;
    int32_t *far;
} Block;

typedef struct {
    float *x, *z;
    uint8_t *live;
    Py_ssize_t stride;
    int width;
} Tile;

typedef struct {
    const Block *block;
    int add, finish, activation;
    float parameter;
    const float *bias;
    /* x: an array of tiles, `lane_of` saying which of its lanes each lane of z reads (-1: zero; NULL: its own) */
    const float *x;
    int64_t x_tile, x_lanes;
    const int32_t *lane_of;
    /* and `number_of` which of its rows each column of the block is (NULL: its own) */
    const int32_t *number_of;
    /* or samples, each a list of rows and values, `lane_of` naming the sample of each lane of z */
    const int64_t *starts;
    const int32_t *sample_rows;
    const float *sample_values;
    float *z;
    int64_t tile, lanes;
    uint8_t *live;
    /* Units of work: how many there are, and which is next, to pack and to multiply. */
    int64_t tiles, chunks, next, next_packed, packed;
    float *scratch;
} Job;

typedef struct {
    const char *name;
    int lanes, chains;
    void (*product)(const Job *, const Tile *, int32_t, int32_t);
    float (*burn)(long);
    float (*sweep)(const float *, Py_ssize_t, long);
} Instructions;

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define NAME(x) x##_avx512
#define NAME_TEXT "avx512"
#define TARGET __attribute__((target("avx512f")))
#define V __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SPLAT(a) _mm512_set1_ps(a)
#define ZERO _mm512_setzero_ps()
#define FMADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
/* max and min give their second operand where one is a NaN. */
#define RELU(z) _mm512_max_ps(ZERO, z)
#define CLIP(z, bound) _mm512_min_ps(bound, _mm512_max_ps(ZERO, z))
#define LEAKY(z, slope) _mm512_mask_mul_ps(z, _mm512_cmp_ps_mask(z, ZERO, _CMP_LT_OQ), z, slope)
#define MARK __mmask16
#define MARK_ZERO 0
#define MARK_OR(mark, z) (__mmask16)((mark) | _mm512_cmp_ps_mask(z, ZERO, _CMP_NEQ_UQ))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (uint8_t)((mark) >> lane_ & 1)
#define MOST_1 4
#define MOST_2 4
#define MOST_4 4
#define MOST_8 2
#include "_product.h"

#define NAME(x) x##_avx2
#define NAME_TEXT "avx2"
#define TARGET __attribute__((target("avx2,fma")))
#define V __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPLAT(a) _mm256_set1_ps(a)
#define ZERO _mm256_setzero_ps()
#define FMADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define RELU(z) _mm256_max_ps(ZERO, z)
#define CLIP(z, bound) _mm256_min_ps(bound, _mm256_max_ps(ZERO, z))
#define LEAKY(z, slope) _mm256_blendv_ps(z, _mm256_mul_ps(z, slope), _mm256_cmp_ps(z, ZERO, _CMP_LT_OQ))
#define MARK int
#define MARK_ZERO 0
#define MARK_OR(mark, z) ((mark) | _mm256_movemask_ps(_mm256_cmp_ps(z, ZERO, _CMP_NEQ_UQ)))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (uint8_t)((mark) >> lane_ & 1)
#define MOST_1 8
#define MOST_2 4
#define MOST_4 2
#define MOST_8 1
#include "_product.h"
#endif

/* For any processor: vectors of four, by the compiler; each product is added by one rounding, as elsewhere, if need be by
 * the C library, which is slow.
 */
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));

static inline Four load_four(const float *p) {
    Four v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_four(float *p, Four v) { memcpy(p, &v, sizeof v); }

#if !defined(__aarch64__)
static inline Four fused_four(Four a, Four b, Four c) {
    return (Four){fmaf(a[0], b[0], c[0]), fmaf(a[1], b[1], c[1]), fmaf(a[2], b[2], c[2]), fmaf(a[3], b[3], c[3])};
}
#endif

static inline Four pick_four(FourInts where, Four yes, Four no) {
    return (Four)((where & (FourInts)yes) | (~where & (FourInts)no));
}

#define NAME(x) x##_portable
#define NAME_TEXT "portable"
#define TARGET
#define V Four
#define LANES 4
#define LOAD(p) load_four(p)
#define STORE(p, v) store_four(p, v)
#define SPLAT(a) ((Four){a, a, a, a})
#define ZERO ((Four){0, 0, 0, 0})
#if defined(__aarch64__)
#include <arm_neon.h>
#define FMADD(a, b, c) ((Four)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define MOST_4 4
#define MOST_8 2
#else
#define FMADD(a, b, c) fused_four(a, b, c)
#define MOST_4 2
#define MOST_8 1
#endif
#define ADD(a, b) ((a) + (b))
#define RELU(z) pick_four((z) < ZERO, ZERO, z)
#define CLIP(z, bound) pick_four((z) > (bound), bound, RELU(z))
#define LEAKY(z, slope) pick_four((z) < ZERO, (z) * (slope), z)
#define MARK FourInts
#define MARK_ZERO ((FourInts){0, 0, 0, 0})
#define MARK_OR(mark, z) ((mark) | ((z) != ZERO))
#define MARK_PUT(mark, bytes) \
    for (int lane_ = 0; lane_ < LANES; lane_++) (bytes)[lane_] = (mark)[lane_] != 0
#define MOST_1 4
#define MOST_2 4
#include "_product.h"

static const Instructions *chosen = &instructions_portable;

#if defined(__x86_64__) && defined(__GNUC__)
/* Not by __builtin_cpu_supports: some compilers' libraries answer it with no, and never look. */
static void look_at_processor(int *avx2, int *avx512) {
    unsigned a, b, c, d, kept = 0;
    *avx2 = *avx512 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return;
    /* Which registers the system keeps from one process to the next. */
    __asm__("xgetbv" : "=a"(kept), "=d"(d) : "c"(0));
    if ((kept & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    *avx2 = (b & bit_AVX2) != 0;
    *avx512 = (kept & 0xe6) == 0xe6 && (b & bit_AVX512F) != 0;
}
#endif

static const Instructions *find_instructions(const char *name) {
#if defined(__x86_64__) && defined(__GNUC__)
    int avx2, avx512;
    look_at_processor(&avx2, &avx512);
    if (avx512 && (!name || !strcmp(name, "avx512"))) return &instructions_avx512;
    if (avx2 && (!name || !strcmp(name, "avx2"))) return &instructions_avx2;
#endif
    return !name || !strcmp(name, "portable") ? &instructions_portable : NULL;
}
