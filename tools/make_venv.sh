#!/usr/bin/env bash
# Make .venv: pinned requirements, torch, ROS, and this package in editable form.
#
# With a sourced ROS 2 distribution the venv sees the system's site-packages and uses the distribution's rclpy and
# messages. Without one, rclpy and the messages are installed as wheels; tf2_msgs and bond, which have none, are built.
# Safe to run again: what is already there is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}

say() { printf 'venv: %s\n' "$*"; }
die() { printf 'venv: error: %s\n' "$*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

distribution_sourced() { [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]]; }

# The first Python 3.11 or 3.12 (which can import rclpy, where a distribution is sourced).
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11 /usr/bin/python3}; do
    supported "$candidate" || continue
    if distribution_sourced && ! "$candidate" -c 'import rclpy' 2>/dev/null; then continue; fi
    printf '%s\n' "$candidate"
    return
  done
  if distribution_sourced; then
    die "ROS $ROS_DISTRO is sourced, but no Python 3.11 or 3.12 here imports its rclpy (set PYTHON=... to name one)"
  fi
  die "Python 3.11 or 3.12 is needed and none was found (set PYTHON=... to name one)"
}

python=$(find_python)
requirements=(-r requirements/base.txt -r requirements/dev.txt)
if distribution_sourced; then
  say "using rclpy and messages of ROS $ROS_DISTRO"
  options=(--system-site-packages)
  system=true
else
  say "no ROS distribution is sourced: installing rclpy and messages as wheels"
  options=()
  system=false
  requirements+=(-r requirements/ros.txt)
fi

# A venv made for the other case, or by a Python that is gone, is of no use.
fits() {
  supported "$venv/bin/python" || return 1
  grep -qx "include-system-site-packages = $system" "$venv/pyvenv.cfg" || return 1
  if distribution_sourced; then "$venv/bin/python" -c 'import rclpy' 2>/dev/null; fi
}

if ! fits; then
  rm -rf "$venv"
  "$python" -c 'import ensurepip, venv' 2>/dev/null \
    || die "$python cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)"
  "$python" -m venv ${options[@]+"${options[@]}"} "$venv"
fi

# --no-deps: the lock files are complete, and a resolver would add the GPU libraries (see requirements/torch.txt).
say "installing the pinned requirements"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-compile --require-hashes \
  "${requirements[@]}" || die "pip could not install the pinned requirements (see above)"
# Without checksums: which build of torch it is depends on the index.
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-compile -r requirements/torch.txt \
  || die "pip could not install torch (see above)"

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  say "this build of torch needs its GPU libraries: installing them"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r requirements/torch.txt
  "$venv/bin/python" -c 'import torch' || die "torch was installed but cannot be imported (see above)"
fi

if ! distribution_sourced; then
  tools/build_messages.sh "$venv"
fi

# On all cores, where pip would use one; a few packages carry templates that are not Python, hence the `true`.
say "compiling to byte code"
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests/' "$venv/lib" >/dev/null 2>&1 || true

say "installing localizer_ros in editable form"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable . \
  || die "pip could not install localizer_ros (see above)"
say "ready: $venv"
