#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs inside a lab host as its first process: network, sshd, engines. LAB_ADDRESS is empty on a host that shares the
# machine's network; LAB_DOCKER is 1 where Docker is to run.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

if [ -n "$LAB_ADDRESS" ]; then
    ip link set lo up
    until [ -e /sys/class/net/eth0 ]; do sleep 0.02; done # the lab plugs the cable in
    ip address add "$LAB_ADDRESS/24" dev eth0
    ip link set eth0 up
    ip route add default via "${LAB_ADDRESS%.*}.1"
    echo 1 > /proc/sys/net/ipv4/ip_forward
fi

mkdir -p /run/sshd /run/lock
/usr/sbin/sshd -E /var/log/lab/sshd.log

if [ "$LAB_DOCKER" = 1 ]; then
    mkdir -p /run/containerd
    env -i PATH="$PATH" containerd < /dev/null > /var/log/lab/containerd.log 2>&1 &
    env -i PATH="$PATH" lab-start-dockerd &
fi

exec tini -s -- sleep infinity
