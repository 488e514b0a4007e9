#!/usr/bin/env bash
# NVIDIA's own bindings of TensorRT 10 and 11, each in an environment of its own, for test/inference/test_tensorrt_api.py.
# About 150 MB; needs the network, and no GPU. FOLDER is .tensorrt-api of the repository unless given. Safe to run again:
# what is whole and up to date is left alone. PYTHON should be of the version of .venv, as one test imports them there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${1:-.tensorrt-api}"
for version in 10 11; do
    wanted="requirements/tensorrt-$version.txt"
    made="$folder/$version/.made-of.txt"
    if cmp --quiet "$wanted" "$made"; then continue; fi
    rm -rf "${folder:?}/$version"
    "${PYTHON:-python3}" -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$made"
done
