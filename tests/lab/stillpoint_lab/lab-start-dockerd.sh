#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts dockerd on the system's containerd, as Debian's unit does, and waits until it answers. Its log is appended to
# /var/log/lab/dockerd.log. Exit code 1 when it does not answer within 60 s.
set -eu
for _ in $(seq 600); do
    [ -S /run/containerd/containerd.sock ] && break
    sleep 0.1
done
setsid dockerd --host=unix:///run/docker.sock --containerd=/run/containerd/containerd.sock --pidfile=/var/run/docker.pid \
    "$@" < /dev/null >> /var/log/lab/dockerd.log 2>&1 &
for _ in $(seq 600); do
    if docker info > /dev/null 2>&1; then
        exit 0
    fi
    sleep 0.1
done
echo "dockerd does not answer after 60 s; see /var/log/lab/dockerd.log" >&2
exit 1
