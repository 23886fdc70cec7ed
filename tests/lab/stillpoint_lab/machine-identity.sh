#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs in a virtual machine, once all its services answer. The lab saves the machine's state while this waits here: each
# machine that continues from that state finds a disk with a script that makes it the host that it is to be.
set -u
until docker info > /dev/null 2>&1; do sleep 0.5; done
sync
echo 3 > /proc/sys/vm/drop_caches # what is in memory would be in the state
echo "lab: ready" > /dev/ttyS0
# The disk is read past the caches, since it becomes another one under this machine's eyes.
until dd if=/dev/vdb bs=64k count=1 iflag=direct 2> /dev/null | sh; do sleep 0.1; done
echo "lab: $(hostname)" > /dev/ttyS0
