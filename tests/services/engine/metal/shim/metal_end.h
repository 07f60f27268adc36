// Takes back the words that <metal_stdlib> redefines; included again and again.
#undef kernel
#undef device
#undef constant
#undef thread
#undef threadgroup
#undef THREADGROUP_ARRAY
#undef __METAL_VERSION__
