#!/usr/bin/env bash
# Installs an aarch64 wheel into an emulated CPython and runs the test suite, as a Raspberry Pi 5 and as a Raspberry Pi 4.
#
#   tests/aarch64/run.sh WHEEL [PYTEST_ARGUMENT...]        WHEEL as tools/build_wheels.py made it
#
# pip takes the wheel and what it depends on as it would on a Raspberry Pi OS of 2023 (Debian 12: CPython 3.11, glibc 2.36).
# The output of each test file is kept (run_files.py beside this script): CACHE/logs/CORE/NAME.log or NAME.failed. The whole
# suite takes hours, and may be interrupted and taken up.
#
# Tests of random cases try a tenth of them (IQRUN_RANDOM_CASES=0.1, see tests/emulated.py): set it to 1 for all.
# IQRUN_TEST_SECONDS=30 ends each test that takes longer, which then counts as skipped.
# CPUS="cortex-a76 cortex-a72", TESTS="tests/test_*.py ..." and CACHE=build/aarch64 choose cores, tests and the folder.
# The kernels have a faster way: tests/c/run.sh runs them on both cores without Python.
#
# Needs Debian's qemu-user and, to fetch the packages of an arm64 CPython, apt and a network. They are unpacked into CACHE,
# never installed on this system. When the wheel changes, remove CACHE/site and CACHE/logs.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$1")
shift
cache=${CACHE:-$root/build/aarch64}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
sysroot=$cache/sysroot
site=$cache/site
python=${PYTHON:-python3}

packages=(python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
    libc6 libgcc-s1 libstdc++6 libbz2-1.0 libcrypt1 libexpat1 libffi8 liblzma5 libncursesw6 libreadline8
    libsqlite3-0 libssl3 libtinfo6 libuuid1 libzstd1 zlib1g)

# apt with lists, cache and architecture of its own: this system's stay as they are.
apt_arm64() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$cache/apt" \
        -o Dir::Cache="$cache/apt" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root "$@"
}

unpack_python() {
    [ -x "$sysroot/usr/bin/python3.11" ] && return
    mkdir -p "$cache/apt/partial" "$cache/apt/archives/partial" "$cache/debs" "$sysroot"
    (cd "$cache/debs" && apt_arm64 update && apt_arm64 download "${packages[@]}")
    for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$sysroot"; done
}

install_wheel() {
    [ -d "$site/iqrun" ] && return
    local platforms=()
    for minor in {17..36}; do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done
    "$python" -m pip -q install --target "$site" --only-binary=:all: --implementation cp --python-version 3.11 \
        --abi cp311 --abi abi3 --abi none "${platforms[@]}" --platform manylinux2014_aarch64 "${wheel}[test]"
}

# An emulated interpreter that starts itself emulated: what it believes to be sys.executable is this script. It keeps the
# bytecode that it makes: without it every start compiles the standard library anew.
write_interpreter() {
    cat >"$cache/python.$$" <<SCRIPT
#!/bin/sh
export PYTHONPATH="\$PYTHONPATH:$site" PYTHONHOME="$sysroot/usr" PYTHONPYCACHEPREFIX="$cache/bytecode"
exec qemu-aarch64 -0 "$cache/python" -L "$sysroot" -cpu "\$EMULATED_CPU" "$sysroot/usr/bin/python3.11" "\$@"
SCRIPT
    chmod +x "$cache/python.$$"
    mv "$cache/python.$$" "$cache/python" # in one step: the cores may be run side by side
}

unpack_python
install_wheel
write_interpreter
cd "$root"
read -r -a tests <<<"$(echo ${TESTS:-tests/test_*.py tests/hostile/test_*.py})"
failures=0
for cpu in ${CPUS:-cortex-a76 cortex-a72}; do
    echo "== $cpu"
    export EMULATED_CPU=$cpu IQRUN_RANDOM_CASES=${IQRUN_RANDOM_CASES:-0.1} OPENBLAS_NUM_THREADS=1
    "$cache/python" tests/aarch64/run_files.py "$cache/logs/$cpu" "${tests[@]}" -- "$@" || failures=1
done
exit "$failures"
