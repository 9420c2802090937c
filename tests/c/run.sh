#!/usr/bin/env bash
# Builds and runs the C tests of the kernels.
#
#   tests/c/run.sh [quick|full] [BUILD_FOLDER]
#
# quick  the system's cc at -O1
# full   gcc and clang at -O3, plain and with the address and undefined-behaviour sanitizers; with
#        aarch64-linux-gnu-gcc and qemu-aarch64 also as a Raspberry Pi 5 (cortex-a76), a 4 (cortex-a72) and with every extension (max).
#        Compilers that are not there are skipped with a line saying so. And what is built for AVX-VNNI has none of AVX-512's
#        encodings.
# Where the CPU has AVX-512 VNNI but no AVX-VNNI, that level runs in the former's encoding (evex_cc.sh).
# Exit code 0: everything that ran agreed. SANITIZED_OPT=-O2 and JOBS=2 change optimisation and parallel compilers.
set -euo pipefail

mode=${1:-full}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${2:-$(mktemp -d)}
[ -n "${2:-}" ] || trap 'rm -rf "$build"' EXIT
mkdir -p "$build"
csrc=$root/cffi_build/csrc
flags=(-std=c11 -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -pthread -I"$csrc" -I"$root/cffi_build/include")
failures=0

if grep -qw avx512_vnni /proc/cpuinfo 2>/dev/null && ! grep -qw avx_vnni /proc/cpuinfo; then
    evex_cc=$root/tests/c/evex_cc.sh
fi

sources() {
    (cd "$csrc" && ls base/*.c format/*.c isa/*.c kernel/*.c)
    echo "$root/tests/c/test_kernels.c"
}

# compile NAME COMPILER FLAG...
compile() {
    local name=$1 compiler=$2 out=$build/$1
    shift 2
    if [ -n "${evex_cc:-}" ] && [ "$compiler" != aarch64-linux-gnu-gcc ]; then
        export REAL_CC=$compiler
        compiler=$evex_cc
    fi
    mkdir -p "$out"
    sources | (cd "$csrc" && xargs -P "${JOBS:-2}" -I{} sh -c \
        'source=$1; out=$2; shift 2; "$@" -c "$source" -o "$out/$(basename "$source").o"' \
        sh {} "$out" "$compiler" "${flags[@]}" "$@") &&
        "$compiler" "$@" -pthread "$out"/*.o -lm -o "$out/test_kernels"
}

# check NAME COMMAND...
check() {
    echo "== $1"
    shift
    "$@" || failures=$((failures + 1))
}

build_and_run() {
    local name=$1
    if ! command -v "$2" >/dev/null; then
        echo "== $name: skipped, $2 is not installed"
        return
    fi
    check "$name: compile" compile "$@"
    check "$name: run" "$build/$name/test_kernels"
}

run_aarch64() {
    if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        echo "== aarch64: skipped, needs aarch64-linux-gnu-gcc and qemu-aarch64"
        return
    fi
    check "aarch64: compile" compile aarch64 aarch64-linux-gnu-gcc -O2 -static
    for cpu in max cortex-a76 cortex-a72; do
        check "aarch64 $cpu: run" qemu-aarch64 -cpu "$cpu" "$build/aarch64/test_kernels"
    done
}

# In 64-bit code a first byte of 62 is EVEX; {vex} is how objdump tells AVX-VNNI's encoding from AVX-512's.
no_evex() {
    "$1" "${flags[@]}" -O3 -c "$csrc/kernel/kernel_avxvnni.c" -o "$build/avxvnni.o"
    objdump -d -w "$build/avxvnni.o" | awk -F'\t' '
        $2 ~ /^62 / { print "EVEX:", $0; evex = 1 }
        $3 ~ /\{vex\} vpdpbusd/ { products++ }
        END { print products " times vpdpbusd"; exit evex || !products }'
}

check_encoding() {
    if [ "$(uname -m)" != x86_64 ] || ! command -v "$1" objdump >/dev/null; then
        echo "== $1 avxvnni: skipped, needs x86-64, $1 and objdump"
        return
    fi
    check "$1: avxvnni without AVX-512's encodings" no_evex "$1"
}

if [ "$mode" = quick ]; then
    build_and_run cc cc -O1
else
    sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 "${SANITIZED_OPT:--O1}")
    for compiler in gcc clang; do
        build_and_run "$compiler" "$compiler" -O3
        build_and_run "$compiler-sanitized" "$compiler" "${sanitizers[@]}"
        check_encoding "$compiler"
    done
    run_aarch64
fi
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
