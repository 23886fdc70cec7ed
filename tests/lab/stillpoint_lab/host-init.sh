#!/bin/sh
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The first process of a lab host, run in new namespaces by the lab. It builds the host's view of the machine and hands
# over to /usr/local/sbin/lab-boot inside it. Taken from the environment:
#   LAB_LOWER  root file system in the cache      LAB_DATA   the host's folder on disk (upper, work, data/...)
#   LAB_IMAGES folder of image archives, or empty
#   LAB_LAYERS folder of image layers, each named by its id, or empty
#   LAB_STATE  the host's state folder            LAB_NAME   host name
#   LAB_CGROUP 2, or 1 with LAB_HIERARCHIES: the options of each v1 hierarchy, separated by spaces
set -eu

read -r pid _ < /proc/self/stat # /proc is still the machine's: this is the pid as the machine counts
echo "$pid" > "$LAB_STATE/pid.part"
mv "$LAB_STATE/pid.part" "$LAB_STATE/pid"

hostname "$LAB_NAME"
mount --make-rprivate /
root=$LAB_STATE/root
mkdir -p "$root"
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_DATA/upper,workdir=$LAB_DATA/work" "$root"

# Overlay does not stack on overlay here: what holds layers of its own lies on the machine's file system.
for folder in "$LAB_DATA"/data/*; do
    mkdir -p "$root/var/lib/${folder##*/}"
    mount --bind "$folder" "$root/var/lib/${folder##*/}"
done
mkdir -p "$root/var/log/lab"
mount --bind "$LAB_STATE/log" "$root/var/log/lab"

show() { # FOLDER NAME: the folder of the machine appears as /srv/NAME, read-only
    [ -n "$1" ] || return 0
    mkdir -p "$root/srv/$2"
    mount --bind "$1" "$root/srv/$2"
    mount -o remount,bind,ro "$root/srv/$2"
}
show "$LAB_IMAGES" lab-images
show "$LAB_LAYERS" lab-layers

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"

mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/net"
for device in null zero full random urandom tty kmsg fuse net/tun; do
    if [ -c "/dev/$device" ]; then
        cp -a "/dev/$device" "$root/dev/$device"
    fi
done
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"

# The cgroup namespace makes the host's own groups the top of each hierarchy.
mount -t sysfs sysfs "$root/sys"
if [ "$LAB_CGROUP" = 2 ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mkdir -p "$root/sys/fs/cgroup/init"
    echo 0 > "$root/sys/fs/cgroup/init/cgroup.procs"
    # The shell that started this one sits in the group for a moment more, and a group with processes of its own cannot
    # pass controllers on.
    controllers=$(sed 's/[^ ]*/+&/g' "$root/sys/fs/cgroup/cgroup.controllers")
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        echo "$controllers" 2> /dev/null > "$root/sys/fs/cgroup/cgroup.subtree_control" && break
        sleep 0.05
    done
else
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/sys/fs/cgroup"
    for options in $LAB_HIERARCHIES; do
        # crun refuses to work beside version 2 where that holds a controller, as it does on this machine.
        [ "$options" = unified ] && continue
        folder=$root/sys/fs/cgroup/${options#name=}
        mkdir "$folder"
        case $options in
            name=*) mount -t cgroup -o "none,$options" cgroup "$folder" ;;
            *) mount -t cgroup -o "$options" cgroup "$folder" ;;
        esac
    done
fi

cd "$root"
mkdir -p .machine
pivot_root . .machine
cd /
umount -l /.machine
rmdir /.machine
mount --make-rshared / # as on a host run by systemd
exec /usr/local/sbin/lab-boot < /dev/null > /var/log/lab/boot.log 2>&1
