#!/usr/bin/env bash
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the collection's archive into .build/dist, installs it into an empty folder and reads a module's page there.
set -euo pipefail
cd "$(dirname "$0")/../.."

rm -rf .build/dist
.venv/bin/ansible-galaxy collection build --output-path .build/dist
archive=$(echo .build/dist/stillpoint-criu-*.tar.gz)

# Only these belong into the archive; anything else means that build_ignore in galaxy.yml misses it.
stray=$(tar -tzf "$archive" |
    grep -Ev '^(docs|extensions|meta|plugins|roles|playbooks|changelogs)(/|$)|^(FILES.json|MANIFEST.json|README.md|LICENSE|CHANGELOG.md)$' || true)
[ -z "$stray" ] || { printf 'ERROR: add these to build_ignore in galaxy.yml:\n%s\n' "$stray" >&2; exit 1; }

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# Only the empty folder: the checkout must not stand in for a file that the archive lacks.
export ANSIBLE_COLLECTIONS_PATH=$place
.venv/bin/ansible-galaxy collection install --offline --collections-path "$place" "$archive"
bin=$PWD/.venv/bin
cd "$place"
page=$("$bin/ansible-doc" -t module stillpoint.criu.criu_info)
[ -n "$page" ] || { echo 'ERROR: ansible-doc finds no stillpoint.criu.criu_info in the installed archive.' >&2; exit 1; }
printf '%s\n' "${page:0:300} ..." "built and installed: $archive"
