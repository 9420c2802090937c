#!/usr/bin/env bash
# Builds and runs the C tests of the formats, the engine, the float kernels and the samplers: with the address and
# undefined-behaviour sanitizers, with the thread sanitizer and, where qemu-aarch64 and its compiler are installed, as a
# Raspberry Pi.
#
#   tests/c/run_engine.sh [BUILD_FOLDER]
#
# The SIMD kernels themselves are compiled without sanitizers (tests/c/run.sh has them): that takes minutes.
# CC chooses the compiler. Exit code 0: everything that ran agreed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
[ -n "${1:-}" ] || trap 'rm -rf "$build"' EXIT
mkdir -p "$build"
build=$(cd "$build" && pwd)
cd "$root/cffi_build/csrc"
flags=(-std=c11 -O1 -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -pthread -I. -I"$root/cffi_build/include")
small=(base/*.c format/*.c isa/*.c engine/*.c sampling/*.c)
for file in kernel/*.c; do [[ $file == kernel/kernel_* ]] || small+=("$file"); done
failures=0

compile_kernels() { # NAME COMPILER
    mkdir -p "$build/$1"
    for file in kernel/kernel_*.c; do "$2" "${flags[@]}" -c "$file" -o "$build/$1/$(basename "$file").o"; done
}

# run_tests KERNELS COMPILER "LAUNCHER" FLAG...
run_tests() {
    local kernels=$1 compiler=$2 launcher=$3
    shift 3
    for test in test_formats test_engine test_stream test_float_kernels test_sampling; do
        echo "== $test: $compiler $* $launcher"
        "$compiler" "${flags[@]}" "$@" "${small[@]}" "$build/$kernels"/*.o "$root/tests/c/$test.c" -o "$build/$test" -lm
        # shellcheck disable=SC2086  # the launcher is a command with its options
        $launcher "$build/$test" || failures=$((failures + 1))
    done
}

# Every allocation and thread start fails once.
run_faults() { # COMPILER FLAG...
    local compiler=$1 wrapped=(malloc calloc realloc aligned_alloc free mmap munmap pthread_create)
    shift
    echo "== test_faults: $compiler $*"
    "$compiler" "${flags[@]}" "$@" "${small[@]}" quantize/*.c "$build"/native/*.o "$root/tests/c/test_faults.c" \
        "${wrapped[@]/#/-Wl,--wrap=}" -o "$build/test_faults" -lm
    "$build/test_faults" || failures=$((failures + 1))
}

compile_kernels native "${CC:-cc}"
run_tests native "${CC:-cc}" "" -g -fsanitize=address,undefined -fno-sanitize-recover=all
run_tests native "${CC:-cc}" "" -g -fsanitize=thread
run_faults "${CC:-cc}" -g -fsanitize=undefined -fno-sanitize-recover=all
if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
    compile_kernels aarch64 aarch64-linux-gnu-gcc
    for cpu in cortex-a76 cortex-a72; do
        run_tests aarch64 aarch64-linux-gnu-gcc "qemu-aarch64 -cpu $cpu" -static
    done
else
    echo "== aarch64: skipped, needs aarch64-linux-gnu-gcc and qemu-aarch64"
fi
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
