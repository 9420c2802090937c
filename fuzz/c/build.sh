#!/usr/bin/env bash
# Builds the C fuzzers with libFuzzer, the address and the undefined-behaviour sanitizer.
#
#   fuzz/c/build.sh BUILD_FOLDER      then: BUILD_FOLDER/fuzz_kernels CORPUS [-runs=1000000] ...
#
# Needs clang with its run-time libraries (Debian: clang libclang-rt-14-dev). JOBS=2 compilers at once.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${1:?usage: build.sh BUILD_FOLDER}"
build=$(cd "$1" && pwd)
cd "$root/cffi_build/csrc"
flags=(-std=c11 -O1 -g1 -ffp-contract=off -fno-math-errno -fno-omit-frame-pointer -fno-sanitize-recover=all -pthread
    -I. -I"$root/cffi_build/include")
# Address faults are the address sanitizer's to find. What the other one adds to each access makes clang take minutes for
# a file of inlined kernels, and every input slower; tests/c runs with all of it.
without=-fno-sanitize=alignment,null,object-size,pointer-overflow

find . -name '*.c' -printf '%P\n' | xargs -P "${JOBS:-2}" -I{} sh -c \
    'source=$1 out=$2; shift 2; object=$out/$(echo "$source" | tr / _).o
     [ "$object" -nt "$source" ] || "$@" -c "$source" -o "$object"' \
    sh {} "$build" "${CC:-clang}" "${flags[@]}" -fsanitize=address,undefined,fuzzer-no-link "$without"
for source in "$root"/fuzz/c/fuzz_*.c; do
    "${CC:-clang}" "${flags[@]}" -fsanitize=address,undefined,fuzzer "$without" "$source" "$build"/*.c.o \
        -o "$build/$(basename "$source" .c)" -lm
done
