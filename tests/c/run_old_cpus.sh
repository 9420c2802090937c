#!/usr/bin/env bash
# The kernels' C test on emulated old processors, x86-64-v1 and ARMv8.0 among them: everything built in that the processor
# can run agrees with the portable kernels, everything else is refused with a sentence. SIGILL is a failure.
#
#   tests/c/run_old_cpus.sh [BUILD_FOLDER] [WHEEL]
#
# With an x86-64 WHEEL, the extension in it is called on those processors, too. Needs qemu-user; the ARM part a cross
# compiler, the wheel a Python with cffi (PYTHON, else python3).
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
[ -n "${1:-}" ] || trap 'rm -rf "$build"' EXIT
mkdir -p "$build"
wheel=${2:+$(realpath "$2")}
flags=(-std=c11 -O2 -ffp-contract=off -fno-math-errno -pthread -static -I. -I"$root/cffi_build/include")
cd "$root/cffi_build/csrc"

# check_on EMULATOR COMPILER REFUSED CPU...
check_on() {
    local emulator=$1 compiler=$2 refused=$3
    shift 3
    if ! command -v "$emulator" "$compiler" >/dev/null; then
        echo "== skipped, needs $emulator and $compiler"
        return
    fi
    "$compiler" "${flags[@]}" base/*.c format/*.c isa/*.c kernel/*.c "$root/tests/c/test_kernels.c" -o "$build/test" -lm
    for cpu; do
        echo "== $cpu"
        "$emulator" -cpu "$cpu" "$build/test" 2>/dev/null
        local code=0
        "$emulator" -cpu "$cpu" "$build/test" "$refused" 2>/dev/null || code=$?
        [ "$code" -eq 2 ] || { echo "$refused on $cpu ended with $code, not with a refusal"; exit 1; }
    done
}

check_on qemu-x86_64 "${CC:-cc}" avx2 qemu64 core2duo Nehalem SandyBridge
check_on qemu-x86_64 "${CC:-cc}" avxvnni Haswell
check_on qemu-x86_64 "${CC:-cc}" avx512 Haswell
check_on qemu-aarch64 aarch64-linux-gnu-gcc neon_dotprod cortex-a53 cortex-a72
check_on qemu-aarch64 aarch64-linux-gnu-gcc neon_i8mm cortex-a76

# wheel_on REFUSED CPU...
wheel_on() {
    for cpu in "${@:2}"; do
        echo "== the wheel on $cpu"
        qemu-x86_64 -cpu "$cpu" "$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')" \
            "$root/tests/c/old_cpu_wheel.py" "$build/_native.abi3.so" "$1" \
            2> >(grep -v "TCG doesn't support" >&2)
    done
}

if [ -n "$wheel" ]; then
    unzip -p "$wheel" iqrun/_native.abi3.so >"$build/_native.abi3.so"
    wheel_on avx2 qemu64 core2duo Nehalem SandyBridge
    wheel_on avx512 Haswell
fi
