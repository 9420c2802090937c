#!/usr/bin/env bash
# Valgrind's memcheck on a few tokens of the demo model, through Python: it finds what the sanitizers do not, values that
# were never written. Takes a minute.
#
#   tools/memcheck.sh [PYTHON]      the Python with iqrun installed (default python3)
#
# Only what iqrun's core has a part in counts; the interpreter has findings of its own, and cffi keeps a table for each
# module that is imported. Valgrind knows no AVX-512 and says
# so to the program, which then takes AVX2. Exit code 0: nothing was found.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
PYTHONMALLOC=malloc valgrind --log-file="$log" --leak-check=full --show-leak-kinds=definite "${1:-python3}" -c '
import iqrun
from iqrun.models.demo import model_path

with iqrun.load(model_path(), n_threads=2, n_ctx=64) as model:
    print(iqrun.cpu_info()["isa"], model.complete("Once upon a time", max_tokens=4, temperature=0))
    model.complete(["A cat", "A dog"], max_tokens=2, temperature=0)
    state = model.state("One day")
    model.complete("One day, a", state=state, max_tokens=2)
'
found=$(sed 's/^==[0-9]*== *//' "$log" | awk -v RS= -v ORS='\n\n' '/_native/ && !/PyInit__native/')
[ -z "$found" ] || { echo "$found"; exit 1; }
echo "nothing was found"
