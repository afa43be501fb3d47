/* elementwise.h: what one element of a tensor operation is, in double or in whole numbers; the cpu and CUDA share it. Float32 has its own, vectorised
   forms (kernels/ops.h, kernels/cuda/tensor.h). ELEMENT_FN may be defined before. */
#ifndef NEAP_ELEMENTWISE_H
#define NEAP_ELEMENTWISE_H
#include <math.h>
#include <stdint.h>
#include "kernels/kernels.h"

#ifndef ELEMENT_FN
#define ELEMENT_FN static inline __attribute__((unused))
#endif

/* C leaves out-of-range conversions undefined: NaN becomes 0, the rest is clamped. */
ELEMENT_FN int64_t to_int(double v, double lo, double hi, int64_t top) { return v != v ? 0 : v <= lo ? (int64_t)lo : v >= hi ? top : (int64_t)v; }

ELEMENT_FN double binary_double(int op, double x, double y) {
    switch (op) {
    case NEAP_OP_ADD: return x + y;
    case NEAP_OP_SUB: return x - y;
    case NEAP_OP_MUL: return x * y;
    case NEAP_OP_DIV: return x / y;
    case NEAP_OP_MIN: return y < x || y != y ? y : x;
    case NEAP_OP_MAX: return y > x || y != y ? y : x;
    default: return pow(x, y);
    }
}

/* integers wrap around, as in Lua */
ELEMENT_FN int64_t binary_int(int op, int64_t x, int64_t y) {
    switch (op) {
    case NEAP_OP_ADD: return (int64_t)((uint64_t)x + (uint64_t)y);
    case NEAP_OP_SUB: return (int64_t)((uint64_t)x - (uint64_t)y);
    case NEAP_OP_MUL: return (int64_t)((uint64_t)x * (uint64_t)y);
    case NEAP_OP_MIN: return y < x ? y : x;
    default: return y > x ? y : x;
    }
}

ELEMENT_FN double unary_double(int op, double x) {
    switch (op) {
    case NEAP_OP_NEG: return -x;
    case NEAP_OP_ABS: return fabs(x);
    case NEAP_OP_SQRT: return sqrt(x);
    case NEAP_OP_SQUARE: return x * x;
    case NEAP_OP_EXP: return exp(x);
    case NEAP_OP_LOG: return log(x);
    case NEAP_OP_TANH: return tanh(x);
    case NEAP_OP_SIGMOID: return 1.0 / (1.0 + exp(-x));
    case NEAP_OP_RELU: return 0.0 > x ? 0.0 : x;
    case NEAP_OP_GELU: return x * 0.5 * erfc(-x * 0.70710678118654752);
    case NEAP_OP_SIN: return sin(x);
    case NEAP_OP_COS: return cos(x);
    case NEAP_OP_FLOOR: return floor(x);
    case NEAP_OP_CEIL: return ceil(x);
    case NEAP_OP_ROUND: return rint(x);
    case NEAP_OP_ASINH: return asinh(x);
    case NEAP_OP_SIGN: return x > 0 ? 1.0 : x < 0 ? -1.0 : x;
    case NEAP_OP_LOG1P: return log1p(x);
    default: return expm1(x);
    }
}
#endif
