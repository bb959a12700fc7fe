#!/bin/sh
# Everything quoin needs on a fresh Debian or Ubuntu machine; `make install` calls it. Usage: install.sh [dev]
# Makes .venv with the exact versions of constraints.txt. System packages are installed where we are root, else named.
set -eu
cd "$(dirname "$0")/.."
want=${1:-run}

say() { printf 'quoin: %s\n' "$*"; }
fail() { printf 'quoin: %s\n' "$*" >&2; exit 1; }

# -- Python ------------------------------------------------------------------------------------------------------------

python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed and was not found. Install it (Debian 12, Ubuntu 24.04 and
newer: sudo apt-get install python3 python3-venv python3-dev), or name one: make install PYTHON=/path/to/python3"

# -- system packages ---------------------------------------------------------------------------------------------------

# Open3D links to these libraries and does not bring them; the compiler and Python.h serve the compiled training step.
missing=$("$python" - <<'PYTHON'
import ctypes, importlib.util, os, shutil, sys, sysconfig

if sys.platform.startswith("linux"):
    libraries = {
        "libusb-1.0.so.0": "libusb-1.0-0", "libGL.so.1": "libgl1", "libEGL.so.1": "libegl1", "libX11.so.6": "libx11-6",
        "libudev.so.1": "libudev1", "libidn2.so.0": "libidn2-0", "libgomp.so.1": "libgomp1",
    }
    for library, package in libraries.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            print(package)
version = f"python{sys.version_info.major}.{sys.version_info.minor}"
if importlib.util.find_spec("ensurepip") is None:
    print(f"{version}-venv")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print(f"{version}-dev")
if shutil.which("g++") is None:
    print("g++")
PYTHON
)
missing=$(echo $missing) # on one line
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing system packages: $missing"
        apt-get update -qq || say "apt-get update failed; trying with the package lists that are here"
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
            fail "these system packages could not be installed: $missing"
    else
        # Without a compiler quoin is only slower; without the rest it does not run.
        needed=$(for package in $missing; do case $package in g++ | python*-dev) ;; *) echo "$package" ;; esac; done)
        line="sudo apt-get update && sudo apt-get install -y $missing"
        [ -z "$needed" ] || fail "system packages are missing. Type this, then run make again:

    $line
"
        say "without a compiler training runs uncompiled, several times slower. To change that: $line"
    fi
fi

# -- Python packages ---------------------------------------------------------------------------------------------------

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || fail "the virtual environment could not be made; is python3-venv installed?"
fi
say "installing Python packages; the first time takes some minutes and 3 GB of disk, more where torch comes with CUDA"
extra='[view]'
[ "$want" != dev ] || extra='[dev,view]'
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".$extra" ||
    fail "the Python packages could not be installed; what pip said stands above. Nothing else was changed."
.venv/bin/python -c 'import open3d' || fail "Open3D does not start; the line above names the library it lacks"
say "installed; try .venv/bin/quoin --help"
