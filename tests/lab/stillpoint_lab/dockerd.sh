#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Stands before the real dockerd: mounts the layers of the images that the lab put into /var/lib/docker. It has to do so at
# every start, because a dockerd that ends unmounts everything below /var/lib/docker/overlay2.
set -eu
for layer in /srv/lab-layers/*; do
    diff=/var/lib/docker/overlay2/${layer##*/}/diff
    # An image that was removed has no folder any more.
    if [ -d "$diff" ] && ! mountpoint -q "$diff"; then
        mount --bind "$layer" "$diff"
    fi
done
exec /usr/sbin/dockerd "$@"
