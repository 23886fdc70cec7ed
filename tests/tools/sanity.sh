#!/usr/bin/env bash
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs `ansible-test sanity` on a copy of the checkout, with the interpreter of .venv and without containers.
# Arguments go to ansible-test, for example: tests/tools/sanity.sh --test validate-modules
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
work=$root/.build/sanity
copy=$work/ansible_collections/stillpoint/criu

# A copy, because ansible-test must find the tree below ansible_collections and must not find .venv in it.
# Files that git ignores stay behind; files that are deleted but not committed yet are left out.
rm -rf "$work/ansible_collections"
mkdir -p "$copy"
git -c safe.directory="$root" ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar -c --null --no-recursion -T - | tar -x --no-same-owner -C "$copy"
# A repository of its own, or ansible-test would find the checkout's, which ignores everything below .build.
git init -q -b main "$copy"

# A home of its own keeps ansible-test's caches inside the checkout; pip still finds the user's settings.
mkdir -p "$work/home/.ansible/test/cache"
for name in .config .pip .cache; do
    [ ! -e "$HOME/$name" ] || ln -sfn "$HOME/$name" "$work/home/$name"
done

# ansible-test downloads a get-pip script from a host that many networks do not reach. The interpreter's own
# ensurepip does the same job, so put a script that uses it where ansible-test looks for a cached download.
site=$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("ansible_test").submodule_search_locations[0])')
versions=$(sed -n "s/^ *pip='\([0-9.]*\)'.*/\1/p" "$site/_internal/python_requirements.py" | sort -u)
[ -n "$versions" ] || { echo "ERROR: this ansible-test names no pip version where expected: adapt $0" >&2; exit 1; }
for version in $versions; do
    cat >"$work/home/.ansible/test/cache/get_pip_${version//./_}.py" <<'PYTHON'
import ensurepip
import subprocess
import sys

ensurepip.bootstrap(upgrade=True)
packages = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
if packages:
    subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *packages], check=True)
PYTHON
done

export HOME=$work/home PATH=$root/.venv/bin:$PATH
version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cd "$copy"
exec ansible-test sanity --local --python "$version" --requirements --color no "$@"
