#!/usr/bin/env bash
# Known faults in what iqrun depends on: installs the package alone and asks pip-audit about everything that came with it.
#
#   tools/audit.sh          exit code 0: none known
#
# Needs a network. Lower bounds stand in pyproject.toml; raise one where a fault was mended.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
"$environment/bin/pip" install -q . pip-audit
"$environment/bin/pip-audit" --local --skip-editable --progress-spinner off
