#!/usr/bin/env bash
# Builds and runs the C tests of the kernels.
#
#   tests/c/run.sh [quick|full] [BUILD_FOLDER]
#
# quick  the system's cc at -O1
# full   gcc and clang at -O3, plain and with the address and undefined-behaviour sanitizers; with
#        aarch64-linux-gnu-gcc and qemu-aarch64 also as a Raspberry Pi 5 (cortex-a76), a 4 (cortex-a72) and with every extension (max).
#        Compilers that are not there are skipped with a line saying so.
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

sources() {
    (cd "$csrc" && ls base/*.c format/*.c isa/*.c kernel/*.c)
    echo "$root/tests/c/test_kernels.c"
}

# compile NAME COMPILER FLAG...
compile() {
    local name=$1 compiler=$2 out=$build/$1
    shift 2
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

if [ "$mode" = quick ]; then
    build_and_run cc cc -O1
else
    sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 "${SANITIZED_OPT:--O1}")
    for compiler in gcc clang; do
        build_and_run "$compiler" "$compiler" -O3
        build_and_run "$compiler-sanitized" "$compiler" "${sanitizers[@]}"
    done
    run_aarch64
fi
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
