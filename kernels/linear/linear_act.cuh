/* linear_act.cuh: activations of linear on the device: value, first and second derivative, as linear_act_internal.h */
#ifndef MICA_KERNELS_LINEAR_ACT_CUH
#define MICA_KERNELS_LINEAR_ACT_CUH

#include "common/cuda_math.cuh"
#include "linear/linear.h"

V_DEVICE float act_value(int act, float z) {
  switch (act) {
    case MICA_ACT_RELU: return z > 0 ? z : 0.0f;
    case MICA_ACT_GELU: return v_gelu(z, 0);
    case MICA_ACT_GELU_TANH: return v_gelu(z, 1);
    case MICA_ACT_SILU: return z * v_sigmoid(z);
    case MICA_ACT_TANH: return v_tanh(z);
    case MICA_ACT_SIGMOID: return v_sigmoid(z);
    default: return z;
  }
}
V_DEVICE float act_first(int act, float z) {
  float y;
  switch (act) {
    case MICA_ACT_RELU: return z > 0 ? 1.0f : 0.0f;
    case MICA_ACT_GELU: return v_gelu_1(z, 0);
    case MICA_ACT_GELU_TANH: return v_gelu_1(z, 1);
    case MICA_ACT_SILU: return v_silu_1(z);
    case MICA_ACT_TANH: y = v_tanh(z); return 1.0f - y * y;
    case MICA_ACT_SIGMOID: return v_sigmoid_1(v_sigmoid(z));
    default: return 1.0f;
  }
}
V_DEVICE float act_second(int act, float z) {
  float y;
  switch (act) {
    case MICA_ACT_GELU: return v_gelu_2(z, 0);
    case MICA_ACT_GELU_TANH: return v_gelu_2(z, 1);
    case MICA_ACT_SILU: return v_silu_2(z);
    case MICA_ACT_TANH: y = v_tanh(z); return -2.0f * y * (1.0f - y * y);
    case MICA_ACT_SIGMOID: y = v_sigmoid(z); return y * (1.0f - y) * (1.0f - 2.0f * y);
    default: return 0.0f;
  }
}

#endif
