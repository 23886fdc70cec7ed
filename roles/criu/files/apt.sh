#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What the role criu asks of apt. Ansible's own module can neither look at a suite that the host does not use yet, nor
# predict anything on a host without python3-apt.
#   apt.sh mirror                   print the mirror that the host installs from
#   apt.sh look PACKAGE...          print NAME=VERSION of each package that there is, as the host's sources have it; with SOURCE and
#                                   PIN (contents of an apt source and of preferences) as the host would have it with them
#   apt.sh install PACKAGE...       install, and print the names of all packages that are new
#   apt.sh remove PACKAGE...        remove those that nothing else needs
# Failures: exit code 1 and one line on standard error.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# Run a command; on failure fail with the line of its output that tells most.
quietly() {
    "$@" > "$work/log" 2>&1 && return
    for pattern in 'Depends:.* but ' '^Err:' '^E: ' '^W: ' '.'; do
        line=$(grep -v 'solver 3.0' "$work/log" | grep -e "$pattern" | tail -n 1 | sed 's/^ *//')
        [ -z "$line" ] || fail "$line"
    done
    fail "$1 failed without a message"
}

installed() {
    dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p' | sort -u
}

# A copy of apt's state in $work, so that looking at a suite changes nothing on the host.
private_apt() {
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/sources" "$work/preferences"
    find /etc/apt/sources.list.d -maxdepth 1 -type f -exec cp {} "$work/sources/" \; 2> /dev/null || true
    find /etc/apt/preferences.d -maxdepth 1 -type f -exec cp {} "$work/preferences/" \; 2> /dev/null || true
    find /var/lib/apt/lists -maxdepth 1 -type f ! -name lock -exec cp -p {} "$work/lists/" \; 2> /dev/null || true
    # What an earlier run of the role has left is not part of the question.
    rm -f "$work/sources/stillpoint-criu.sources" "$work/preferences/stillpoint-criu"
    cat > "$work/apt.conf" <<END
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
Dir::Etc::sourceparts "$work/sources";
Dir::Etc::preferencesparts "$work/preferences";
APT::Sandbox::User "root";
APT::Get::List-Cleanup "false";
END
    export APT_CONFIG="$work/apt.conf"
}

look() {
    private_apt
    # An unreachable source that has nothing to do with CRIU is no reason to stop.
    apt-get update -q > /dev/null 2>&1 || true
    if [ -n "${SOURCE:-}" ]; then
        mkdir "$work/suite"
        printf '%s\n' "$SOURCE" | tee "$work/sources/stillpoint-criu.sources" > "$work/suite/stillpoint-criu.sources"
        printf '%s\n' "$PIN" > "$work/preferences/stillpoint-criu"
        quietly apt-get update -q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/suite" \
            -o APT::Update::Error-Mode=any
    fi
    for package in "$@"; do
        version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
        case $version in '' | '(none)') ;; *) printf '%s=%s\n' "$package" "$version" ;; esac
    done > "$work/found"
    grep -q . "$work/found" || fail "no package named $*"
    # Whether they can be installed; the pin sees to it that no other package is upgraded from that suite.
    # shellcheck disable=SC2046
    quietly apt-get install --simulate --no-install-recommends --no-remove $(cat "$work/found")
    cat "$work/found"
}

install() {
    installed > "$work/before"
    quietly apt-get update -q
    quietly apt-get install -q -y --no-install-recommends --no-remove \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
    installed | comm -13 "$work/before" -
}

remove() {
    if [ $# -gt 0 ]; then
        installed > "$work/before"
        printf '%s\n' "$@" | sort -u | comm -12 - "$work/before" > "$work/ours"
        if [ -s "$work/ours" ]; then
            # What is marked so is removed by apt as soon as no other package depends on it.
            # shellcheck disable=SC2046
            quietly apt-mark auto $(cat "$work/ours")
            apt-get autoremove --simulate -o APT::AutoRemove::RecommendsImportant=false \
                -o APT::AutoRemove::SuggestsImportant=false | sed -n 's/^Remv \([^ :]*\).*/\1/p' | sort -u |
                comm -12 - "$work/ours" > "$work/unneeded"
            if [ -s "$work/unneeded" ]; then
                # shellcheck disable=SC2046
                quietly apt-get purge -q -y $(cat "$work/unneeded")
            fi
        fi
    fi
    # Without its source the lists of the other suite go too. They do no harm where there is no network.
    apt-get update -q > /dev/null 2>&1 || true
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command=$1
shift
case $command in
mirror)
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(SITE) $(ORIGIN) $(CODENAME)' |
        awk '($2 == "Debian" || $2 == "Ubuntu") && $3 !~ /security/ && $1 !~ /security/ { sub("/$", "", $1); print $1; exit }'
    ;;
look | install | remove) "$command" "$@" ;;
*) fail "unknown command: $command" ;;
esac
