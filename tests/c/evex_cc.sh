#!/usr/bin/env bash
# A compiler whose AVX-VNNI instructions are encoded as AVX-512's, which do the same: so that what the compiler makes of
# kernel/kernel_avxvnni.c runs where only AVX-512 VNNI does (Ice Lake, Zen 4), every other instruction as it is.
#
#   CC=tests/c/evex_cc.sh python setup.py build_ext --inplace        REAL_CC=clang takes another compiler than gcc
set -euo pipefail

read -ra compiler <<<"${REAL_CC:-gcc}"
case " $* " in
*kernel_avxvnni.c\ *) ;;
*isa/cpu.c\ *) exec "${compiler[@]}" -DIQ_AVXVNNI_AS_AVX512 "$@" ;;
*) exec "${compiler[@]}" "$@" ;;
esac

assembly=$(mktemp --suffix=.s)
trap 'rm -f "$assembly"' EXIT
to_assembly=()
object=
while [ $# -gt 0 ]; do
    case $1 in
    -c) ;;
    -o) object=$2 && shift ;;
    *) to_assembly+=("$1") ;;
    esac
    shift
done
"${compiler[@]}" "${to_assembly[@]}" -S -o - | sed -E 's/\{vex\}([[:space:]]+vpdp)/{evex}\1/' >"$assembly"
grep -q '{evex}' "$assembly" || { echo "$0: no AVX-VNNI in ${compiler[*]}'s assembly" >&2; exit 1; }
"${compiler[@]}" -c "$assembly" -o "$object"
