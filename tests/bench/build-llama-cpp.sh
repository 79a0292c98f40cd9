#!/usr/bin/env bash
# Builds llama.cpp for the measurements of docs/performance.md, from the source inside of PyPI's llama-cpp-python.
# Needs Python 3 with venv and pip, and a C++ compiler.
#
#   tests/bench/build-llama-cpp.sh FOLDER [native|avx2] [BUILD ARGUMENTS, for example -j2]
#
# The programs are in FOLDER/native/bin or FOLDER/avx2/bin then.
set -euo pipefail
folder=$1
kind=${2:-native}
shift $(($# < 2 ? $# : 2))
# What the figures in docs/performance.md were made with.
version=0.3.36

case $kind in
  native) flags=(-DGGML_NATIVE=ON) ;;
  avx2) flags=(-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF) ;;
  *) echo "the second argument is native or avx2, not $kind" >&2; exit 2 ;;
esac

mkdir -p "$folder"
cd "$folder"
[ -x venv/bin/cmake ] || { python3 -m venv venv && venv/bin/pip install --quiet cmake ninja scikit-build-core; }
if [ ! -d source ]; then
  # Without isolation: only the source is wanted, and its build's needs are many.
  venv/bin/pip download --quiet --no-deps --no-binary llama-cpp-python --no-build-isolation "llama-cpp-python==$version"
  tar xzf "llama_cpp_python-$version.tar.gz"
  mv "llama_cpp_python-$version/vendor/llama.cpp" source
fi
PATH=$PWD/venv/bin:$PATH cmake -S source -B "$kind" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
  -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF "${flags[@]}"
PATH=$PWD/venv/bin:$PATH cmake --build "$kind" "$@" \
  --target llama-bench llama-batched-bench llama-quantize llama-server
