#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Ends containerd and starts it again, as systemd would: containers run on under their shims. Waits until it answers.
set -eu
for file in /proc/[0-9]*/comm; do
    pid=${file#/proc/}
    pid=${pid%/comm}
    if [ "$(cat "$file" 2> /dev/null)" = containerd ]; then
        kill "$pid"
        while kill -0 "$pid" 2> /dev/null; do sleep 0.05; done
    fi
done
setsid containerd < /dev/null >> /var/log/lab/containerd.log 2>&1 &
for _ in $(seq 600); do
    if ctr version > /dev/null 2>&1; then
        exit 0
    fi
    sleep 0.1
done
echo "containerd does not answer after 60 s; see /var/log/lab/containerd.log" >&2
exit 1
