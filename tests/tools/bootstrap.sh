#!/usr/bin/env bash
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs what the other targets of the Makefile need; does nothing when it is there already.
#   bootstrap.sh venv      .venv with requirements-dev.txt, and the collection linked into .build
#   bootstrap.sh system    Debian packages that the lab needs on this machine
#   bootstrap.sh machines  Debian packages that virtual machines of the lab need on this machine
#   bootstrap.sh checks    Debian packages that `ansible-test sanity` needs on this machine
#   bootstrap.sh promtool  Prometheus' promtool in .build
#   bootstrap.sh browser   Debian packages that the test of the report in a browser needs on this machine
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
mkdir -p .build

say() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf 'ERROR: %s\n' "$*" >&2
    exit 1
}

# Install the Debian packages named that are missing here.
packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "these Debian packages are missing: ${missing[*]}. Install them, or run make as root."
    say "installing Debian packages: ${missing[*]}"
    {
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    } >.build/apt.log 2>&1 </dev/null || fail "apt could not install ${missing[*]}: $(tail -n 5 .build/apt.log) (all of it: .build/apt.log)"
}

# Print the first usable interpreter of the versions named, best first. Usable: it starts (a pyenv shim may not)
# and can make virtual environments (Debian splits ensurepip off).
interpreter() {
    local version candidate
    for version in "$@"; do
        for candidate in "python$version" "$HOME/.pyenv/versions/$version".*/bin/"python$version" "/usr/bin/python$version"; do
            if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
                command -v "$candidate"
                return
            fi
        done
    done
    return 1
}

# The collection must be seen as ansible_collections/stillpoint/criu.
link() {
    mkdir -p .build/ansible_collections/stillpoint
    ln -sfn ../../.. .build/ansible_collections/stillpoint/criu
}

venv() {
    exec 9>.build/venv.lock
    flock 9
    link
    [ -e .venv/ready ] && [ ! requirements-dev.txt -nt .venv/ready ] && .venv/bin/python -c '' 2>/dev/null && return
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        local python
        if ! python=$(interpreter 3.13 3.12); then
            packages ca-certificates python3 python3-venv
            python=$(interpreter 3.13 3.12 3.11) || fail "no Python 3.11, 3.12 or 3.13 with ensurepip found: install one."
        fi
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "installing Python packages into .venv ($(.venv/bin/python -V); about a minute)"
    # -qq: errors only
    .venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt </dev/null ||
        fail "pip could not install requirements-dev.txt into .venv; its messages are above."
    touch .venv/ready
}

# Out of its package, which is not installed: that would start a server.
fetch_promtool() {
    command -v promtool >/dev/null || [ -x .build/promtool/usr/bin/promtool ] && return
    say "fetching promtool"
    rm -rf .build/promtool.part
    mkdir .build/promtool.part
    (cd .build/promtool.part && { apt-get update -q && apt-get download prometheus; } >../apt.log 2>&1 &&
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb) ||
        fail "apt could not fetch the package prometheus: $(tail -n 5 .build/apt.log)"
    mv .build/promtool.part .build/promtool
}

case "${1:-}" in
venv) venv ;;
system) packages debootstrap iproute2 openssh-client rsync zstd ;;
machines) packages e2fsprogs qemu-system-x86 ;;
checks) packages shellcheck ;;
promtool) fetch_promtool ;;
browser) packages chromium ;;
*) fail "usage: bootstrap.sh venv|system|machines|checks|promtool|browser" ;;
esac
