#!/usr/bin/env bash
# Builds llama.cpp once, from the sources in PyPI's llama-cpp-python, and the small program beside this script that prints
# logits. Nothing else needs it, and .ci/run does not run it.
#
#   tests/interop/llama_cpp/build.sh DIR
#   MTLORA_LLAMA_CPP=DIR/logits MTLORA_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf \
#       cargo test --release --workspace --test llama_cpp -- --ignored
#
# Needs Python with pip, a C++ compiler, cmake (`pip install cmake` has one) and, with JOBS=1, half an hour.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$1"
cd "$1"
[ -d src ] || {
    "${PYTHON:-python3}" -m pip download --no-deps --no-binary llama-cpp-python llama-cpp-python
    mkdir src
    tar xf llama_cpp_python-*.tar.gz -C src --strip-components=1
}
cmake -S src/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_OPENMP=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_COMMON=OFF
nice cmake --build build --target llama -j "${JOBS:-1}"
g++ -O2 -std=c++17 "$here/logits.cpp" -o logits -I src/vendor/llama.cpp/include -I src/vendor/llama.cpp/ggml/include \
    -L build/bin -lllama -lggml -lggml-base -Wl,-rpath,"$PWD/build/bin"
