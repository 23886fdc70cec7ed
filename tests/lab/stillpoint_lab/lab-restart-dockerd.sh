#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Stops dockerd in good order, waits for its end and starts it again; arguments are handed to the new dockerd.
set -eu
pid=$(cat /var/run/docker.pid)
kill "$pid"
for _ in $(seq 600); do
    if ! kill -0 "$pid" 2> /dev/null; then
        exec lab-start-dockerd "$@"
    fi
    sleep 0.1
done
echo "dockerd (pid $pid) has not ended after 60 s; see /var/log/lab/dockerd.log" >&2
exit 1
