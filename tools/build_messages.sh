#!/usr/bin/env bash
# Build the message packages of tools/messages, which have no wheels, against the ROS wheels of a venv and install them
# into that venv, where they are imported like any other. Does nothing for those that are importable already.
# Usage: tools/build_messages.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'messages: error: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 1 && -x $1/bin/python ]] || die "usage: tools/build_messages.sh VENV"
prefix=$(cd "$1" && pwd)
python=$prefix/bin/python
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

# works PACKAGE MESSAGE
works() {
  "$python" -c 'import sys
from importlib import import_module
from rclpy.type_support import check_for_type_support
check_for_type_support(getattr(import_module(f"{sys.argv[1]}.msg"), sys.argv[2]))' "$1" "$2" >/dev/null 2>&1
}

need_compiler() {
  command -v cmake >/dev/null || die "cmake is not installed (on Debian and Ubuntu: apt install cmake)"
  command -v c++ >/dev/null || die "no C++ compiler is installed (on Debian and Ubuntu: apt install g++)"
  "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' \
    || die "the headers of Python are not installed (on Debian and Ubuntu: apt install python3-dev)"
}

# build PACKAGE MESSAGE
build() {
  printf 'messages: building %s\n' "$1"
  if ! {
    PATH=$prefix/bin:$PATH AMENT_PREFIX_PATH=$prefix CMAKE_PREFIX_PATH=$prefix LD_LIBRARY_PATH=$prefix/lib \
      cmake -S "tools/messages/$1" -B "$build/$1" -DCMAKE_INSTALL_PREFIX="$prefix" -DPython3_EXECUTABLE="$python" \
      -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
    PATH=$prefix/bin:$PATH AMENT_PREFIX_PATH=$prefix LD_LIBRARY_PATH=$prefix/lib \
      cmake --build "$build/$1" --parallel 2 --target install
  } >"$build/log" 2>&1; then
    tail -n 30 "$build/log" >&2
    die "the build of $1 failed (its last lines are above)"
  fi
  works "$1" "$2" || die "the build succeeded, but $1.msg.$2 cannot be imported with its type support"
}

for folder in tools/messages/*/; do
  package=$(basename "$folder")
  message=$(basename "$folder"msg/*.msg .msg)
  works "$package" "$message" && continue
  need_compiler
  build "$package" "$message"
done
