#!/usr/bin/env bash
# Build tools/tf2_msgs against the ROS wheels of a venv and install it into that venv, where `import tf2_msgs` finds
# it like any other message package. Does nothing when it is already importable.
# Usage: tools/build_tf2_msgs.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'tf2_msgs: error: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 1 && -x $1/bin/python ]] || die "usage: tools/build_tf2_msgs.sh VENV"
prefix=$(cd "$1" && pwd)
python=$prefix/bin/python

works() {
  "$python" -c 'from rclpy.type_support import check_for_type_support
from tf2_msgs.msg import TFMessage
check_for_type_support(TFMessage)' >/dev/null 2>&1
}

if works; then exit 0; fi
command -v cmake >/dev/null || die "cmake is not installed (on Debian and Ubuntu: apt install cmake)"
command -v c++ >/dev/null || die "no C++ compiler is installed (on Debian and Ubuntu: apt install g++)"
"$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())' \
  || die "the headers of Python are not installed (on Debian and Ubuntu: apt install python3-dev)"

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
printf 'tf2_msgs: building\n'
if ! {
  PATH=$prefix/bin:$PATH AMENT_PREFIX_PATH=$prefix CMAKE_PREFIX_PATH=$prefix LD_LIBRARY_PATH=$prefix/lib \
    cmake -S tools/tf2_msgs -B "$build" -DCMAKE_INSTALL_PREFIX="$prefix" -DPython3_EXECUTABLE="$python" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
  PATH=$prefix/bin:$PATH AMENT_PREFIX_PATH=$prefix LD_LIBRARY_PATH=$prefix/lib \
    cmake --build "$build" --parallel 2 --target install
} >"$build/log" 2>&1; then
  tail -n 30 "$build/log" >&2
  die "the build failed (its last lines are above)"
fi
works || die "the build succeeded, but TFMessage cannot be imported with its type support"
