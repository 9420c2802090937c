#!/usr/bin/env bash
# The kernels' C test on emulated old processors, x86-64-v1 and ARMv8.0 among them: everything built in that the processor
# can run agrees with the portable kernels, everything else is refused with a sentence. SIGILL is a failure.
#
#   tests/c/run_old_cpus.sh [BUILD_FOLDER] [WHEEL]
#
# With a WHEEL, the extension in it is called on those processors, too: of x86-64 by PYTHON (else python3), which has cffi, of
# aarch64 by EMULATED_PYTHON (else build/aarch64/python, which tests/aarch64/run.sh makes).
# Needs qemu-user; the ARM part a cross compiler. JOBS=2 changes parallel compilers.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
[ -n "${1:-}" ] || trap 'rm -rf "$build"' EXIT
mkdir -p "$build"
build=$(cd "$build" && pwd)
wheel=${2:+$(realpath "$2")}
flags=(-std=c11 -O2 -ffp-contract=off -fno-math-errno -pthread -I. -I"$root/cffi_build/include")
cd "$root/cffi_build/csrc"

# compile COMPILER FOLDER
compile() {
    mkdir -p "$2"
    ls base/*.c format/*.c isa/*.c kernel/*.c "$root/tests/c/test_kernels.c" | xargs -P "${JOBS:-2}" -I{} sh -c \
        'source=$1; folder=$2; shift 2; "$@" -c "$source" -o "$folder/$(basename "$source").o"' \
        sh {} "$2" "$1" "${flags[@]}"
    "$1" -static -pthread "$2"/*.o -o "$2/test" -lm
}

# check_on EMULATOR TEST REFUSED CPU...
check_on() {
    local emulator=$1 test=$2 refused=$3
    shift 3
    for cpu; do
        echo "== $cpu"
        "$emulator" -cpu "$cpu" "$test" 2>/dev/null
        local code=0
        "$emulator" -cpu "$cpu" "$test" "$refused" 2>/dev/null || code=$?
        [ "$code" -eq 2 ] || { echo "$refused on $cpu ended with $code, not with a refusal"; exit 1; }
    done
}

# usable COMMAND...
usable() {
    command -v "$@" >/dev/null && return
    echo "== skipped, needs $*"
    return 1
}

if usable qemu-x86_64 "${CC:-cc}"; then
    compile "${CC:-cc}" "$build/x86_64"
    check_on qemu-x86_64 "$build/x86_64/test" avx2 qemu64 core2duo Nehalem SandyBridge
    check_on qemu-x86_64 "$build/x86_64/test" avx512 Haswell
fi
if usable qemu-aarch64 aarch64-linux-gnu-gcc; then
    compile aarch64-linux-gnu-gcc "$build/aarch64"
    check_on qemu-aarch64 "$build/aarch64/test" neon_dotprod cortex-a53 cortex-a72
    check_on qemu-aarch64 "$build/aarch64/test" neon_i8mm cortex-a76
fi

# wheel_on REFUSED CPU...
wheel_on() {
    local python
    python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
    for cpu in "${@:2}"; do
        echo "== the wheel on $cpu"
        local command=(qemu-x86_64 -cpu "$cpu" "$python")
        [[ $wheel != *aarch64.whl ]] || command=(env EMULATED_CPU="$cpu" "${EMULATED_PYTHON:-$root/build/aarch64/python}")
        "${command[@]}" "$root/tests/c/old_cpu_wheel.py" "$build/_native.abi3.so" "$1" \
            2> >(grep -v "TCG doesn't support" >&2)
    done
}

[ -z "$wheel" ] || unzip -p "$wheel" iqrun/_native.abi3.so >"$build/_native.abi3.so"
case $wheel in
    *x86_64.whl)
        wheel_on avx2 qemu64 core2duo Nehalem SandyBridge
        wheel_on avx512 Haswell
        ;;
    *aarch64.whl)
        wheel_on neon_dotprod cortex-a53 cortex-a72
        wheel_on neon_i8mm cortex-a76
        ;;
esac
