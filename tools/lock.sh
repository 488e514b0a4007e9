#!/usr/bin/env bash
# Resolve requirements/*.in into requirements/*.txt: pinned, with checksums, the same for Python 3.11 and 3.12.
# Usage: tools/lock.sh VENV
set -euo pipefail
cd "$(dirname "$0")/../requirements"

[[ $# -eq 1 ]] || { printf 'usage: tools/lock.sh VENV\n' >&2; exit 2; }
python=../$1/bin/python
[[ $1 = /* ]] && python=$1/bin/python

# uv is needed for this alone, so it is not among the requirements.
"$python" -m uv --version >/dev/null 2>&1 || "$python" -m pip install --quiet --disable-pip-version-check 'uv>=0.11'

for name in base dev ros; do # dev is constrained by base, ros by both
  "$python" -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --no-header --no-annotate --no-emit-index-url --generate-hashes --excludes excludes.txt "$name.in" --output-file "$name.txt"
done
