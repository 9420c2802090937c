#!/usr/bin/env bash
# Runs the test suite of an aarch64 build under emulation, as a Raspberry Pi 5 and as a Raspberry Pi 4.
#
#   tests/aarch64/run.sh [CACHE_FOLDER] [PYTEST_ARGUMENT...]
#
# Needs Debian's qemu-user, gcc-aarch64-linux-gnu, and arm64 as a foreign architecture of apt:
#   dpkg --add-architecture arm64 && apt-get update && apt-get install qemu-user gcc-aarch64-linux-gnu
# A whole arm64 CPython is unpacked into CACHE_FOLDER (default: build/aarch64), never installed on this system.
# CPUS="cortex-a76 cortex-a72" and TESTS="..." choose other cores and other tests. The kernels have a faster way:
# tests/c/run.sh runs them on both cores without Python.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${1:-$root/build/aarch64}
shift || true
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
sysroot=$cache/sysroot
site=$cache/site
python=${PYTHON:-python3}

packages=(python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-dev
    libc6 libgcc-s1 libstdc++6 libbz2-1.0 libcrypt1 libexpat1 libffi8 liblzma5 libncursesw6 libreadline8
    libsqlite3-0 libssl3 libtinfo6 libuuid1 libzstd1 zlib1g)

unpack_python() {
    [ -x "$sysroot/usr/bin/python3.11" ] && return
    mkdir -p "$cache/debs" "$sysroot"
    (cd "$cache/debs" && apt-get -qq download "${packages[@]/%/:arm64}")
    for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$sysroot"; done
}

unpack_wheels() {
    [ -d "$site/numpy" ] && return
    "$python" -m pip -q download --dest "$cache/wheels" --only-binary=:all: --implementation cp --python-version 3.11 \
        --abi cp311 --abi abi3 --abi none --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        cffi numpy jinja2 sentencepiece tokenizers prompt_toolkit platformdirs pytest hypothesis gguf pexpect pyte
    for wheel in "$cache"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$site"; done
}

# The package as setuptools would lay it out, with the extension cross-compiled from the same sources and flags.
build_package() {
    local package=$cache/build/iqrun
    rm -rf "$cache/build" && mkdir -p "$cache/build" && cp -r "$root/runtime" "$package"
    cp -r "$root/models" "$package/models" && cp -r "$root/cli" "$package/cli"
    rm -f "$package"/*.so
    (cd "$root" && PYTHONPATH=cffi_build "$python" -c "
import shlex, sys, build
build.ffibuilder.emit_c_code(sys.argv[1])
print(shlex.join(build.compile_args() + build.sources()))" "$cache/_native.c" >"$cache/arguments")
    (cd "$root" && eval "aarch64-linux-gnu-gcc -shared -fPIC -DPy_LIMITED_API=0x030a0000 \
        -I'$sysroot/usr/include/python3.11' -I'$sysroot/usr/include' -Icffi_build/include -Icffi_build/csrc \
        $(tail -n 1 "$cache/arguments") '$cache/_native.c' -lm -o '$package/_native.abi3.so'")
}

# An emulated interpreter that starts itself emulated: what it believes to be sys.executable is this script.
write_interpreter() {
    cat >"$cache/python" <<SCRIPT
#!/bin/sh
export PYTHONPATH="\$PYTHONPATH:$cache/build:$site" PYTHONHOME="$sysroot/usr" PYTHONDONTWRITEBYTECODE=1
exec qemu-aarch64 -0 "$cache/python" -L "$sysroot" -cpu "\$EMULATED_CPU" "$sysroot/usr/bin/python3.11" "\$@"
SCRIPT
    chmod +x "$cache/python"
}

unpack_python
unpack_wheels
build_package
write_interpreter
read -r -a tests <<<"${TESTS:-tests/test_formats.py tests/test_quantize_rows.py tests/test_engine.py tests/test_model.py}"
for cpu in ${CPUS:-cortex-a76 cortex-a72}; do
    echo "== $cpu"
    (cd "$root" && EMULATED_CPU=$cpu "$cache/python" -m pytest -p no:cacheprovider "${tests[@]}" "$@")
done
