# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder: restores the processes of a container into its placeholder, between ``create`` and ``start``.

It outlives ``create``: CRIU waits in a notification, with the init process made and nothing run yet, until ``start``
says go. Engines (Docker from 28 on) plug the network in between the two. When the restored tree, CRIU or the
container goes away meanwhile, the holder removes what is left.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock, session
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import (
    cgroup,
    hostname,
    kernel,
    mountinfo,
    process,
    rootfs,
    spec,
    tree,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import (
    gate,
    orphan,
    places,
    reason,
    restrict,
    staging,
    volumes,
    yards,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.call import Call
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.placeholder import Placeholder
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.ticket import Ticket

LOG = "restore.log"
IMAGES = "checkpoint"
NETWORK_KEY = "extRootNetNS"
# Kinds of namespaces that CRIU can enter instead of making them; the network comes by NETWORK_KEY.
_JOINED = ("ipc", "uts")
_CLONE_NEWNET = 0x40000000
_WATCH_SECONDS = 1.0
_KILL_SECONDS = 5.0


class Abandoned(Exception):
    """The container was removed, or its processes ended, before it was started."""


class Holder:
    """One restore.

    Args:
        ticket: what to restore.
        call: the engine's ``create`` call.
        placeholder: the container to restore into.
        answer: descriptor on which ``create`` waits for ``{"pid": ...}`` or ``{"error": ...}``.
    """

    def __init__(self, ticket: Ticket, call: Call, placeholder: Placeholder, answer: int) -> None:
        self.ticket = ticket
        self.call = call
        self.placeholder = placeholder
        self.folder = places.folder(ticket.container_id)
        self.root = places.root(ticket.container_id)
        self.terminal = "console-socket" in call.options
        self.pid = 0
        self._answer: int | None = answer
        self._starter: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._criu: session.Session | None = None
        self._gate: gate.Gate | None = None
        self._flags: dict[str, tuple[str, ...]] = {}  # of the mounts that come from the host
        self._network: int | None = None  # its network namespace
        self._speaks = False  # whether that is no longer silenced
        self._own_network = False
        self._uts: tuple[str, str] | None = None  # a namespace of others that it shares, and the host name there

    def run(self) -> None:
        """Restore, and report to whoever waits. Returns when there is nothing left to hold."""
        try:
            self._restore()
        except BaseException as e:  # whatever it is, nothing half-alive may remain and the engine must hear of it
            self._clean(failed=True)
            log = os.path.join(self.ticket.checkpoint, LOG)
            self._report({"error": reason.explain(e, log, "The container")})
        else:
            self._clean(failed=False)
            self._report({"pid": self.pid})

    # -- steps -----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        self._network = network = os.open(f"/proc/{self.placeholder.pid}/ns/net", os.O_RDONLY)
        self._criu = session.Session(self.ticket.executable, pass_fds=[network], preexec=self._move_in())
        if self.ticket.gate:
            self._gate = gate.Gate(self.ticket.gate)
            self._gate.wait(gate.ARMED, self._check_alive)
        bundle = self.call.options["bundle"]
        config = spec.load(bundle)
        self._own_network = self.ticket.network_namespace and not spec.namespaces(config).get("network")
        root = spec.rootfs(bundle, config)
        if self.ticket.rootfs:
            rootfs.apply(self.ticket.checkpoint, root)
        there = spec.binds(config)
        lacking = staging.needed(self.ticket, there)
        sources, masked = self._mount_sources(config, lacking)
        for volume in self.ticket.volumes:
            source = there.get(volume["destination"])
            if volume["kind"] == "file" or volume in lacking:
                continue  # the new engine has its own, or it is staged
            if source is None:
                raise rootfs.RootfsError(f"the new container mounts nothing at {volume['destination']}")
            volumes.bring_back(self.ticket.container_id, volume["archive"], source)
        staged = staging.stage(self.ticket, lacking, masked)
        if lacking:
            tree.make_places(root, {volume["destination"]: volume["kind"] == "shm" for volume in lacking})
        sources.update(staged)
        os.mkdir(self.root, 0o700)
        kernel.bind_mount(root, self.root)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(places.control(self.ticket.container_id))
        self._listener.listen(1)
        images = os.open(os.path.join(self.ticket.checkpoint, IMAGES), os.O_RDONLY | os.O_DIRECTORY)
        work = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        joined = {kind: path for kind, path in spec.namespaces(config).items() if path and kind in _JOINED}
        if "uts" in joined:
            self._uts = (joined["uts"], hostname.get(joined["uts"]))
        self._criu.watch = self._watch
        yards.note(self.ticket.container_id)
        message = self._criu.request("RESTORE", opts=self._options(sources, joined, network, images, work))
        self._criu.call(message, self._on_notify)
        os.unlink(self.placeholder.exec_fifo)

    def _move_in(self) -> Any:
        """Return what brings CRIU into the placeholder's control groups: what it restores is born there."""
        folders = self.placeholder.cgroups
        own_namespace = process.namespace(self.placeholder.pid, "cgroup") != process.namespace("self", "cgroup")

        def move_in() -> None:
            cgroup.join(folders)
            if own_namespace:
                kernel.unshare(kernel.CLONE_NEWCGROUP)

        return move_in

    def _mount_sources(self, config: dict[str, Any], staged: list[dict[str, str]]) -> tuple[dict[str, str], list[str]]:
        """Return ({mount point: what to mount there}, mount points of folders that take an empty one)."""
        elsewhere = {volume["destination"] for volume in staged}
        wanted = [target for target in self.ticket.external_mounts if target not in elsewhere]
        there = mountinfo.read(self.placeholder.pid)
        sources, missing = spec.mount_sources(wanted, config, there, mountinfo.read())
        self._flags = {mount.target: mount.flags for mount in there if mount.target in wanted}
        masked = []
        for target in list(missing):
            if not target.startswith(("/proc/", "/sys/")):
                continue
            self._flags[target] = ("ro",)
            # The source's kernel or stock runtime has masked more than those of this host, or in another way.
            if os.path.isdir(f"/proc/{self.placeholder.pid}/root{target}"):
                masked.append(target)
            else:
                sources[target] = os.devnull
            missing.remove(target)
        if missing:
            raise rootfs.RootfsError(
                f"the checkpointed container had something of its host mounted at {', '.join(missing)}, "
                "the new container has nothing there; give it the same mounts"
            )
        return sources, masked

    def _options(self, sources: dict[str, str], joined: dict[str, str], network: int, images: int, work: int) -> Any:
        rpc = session.rpc()
        options = rpc.criu_opts(
            images_dir_fd=images,
            work_dir_fd=work,
            log_file=LOG,
            log_level=4,
            root=self.root,
            rst_sibling=True,
            evasive_devices=True,
            orphan_pts_master=True,
            notify_scripts=True,
            manage_cgroups=True,
            manage_cgroups_mode=rpc.IGNORE,
            network_lock=getattr(rpc, self.ticket.network_lock),
            **self.ticket.options,
        )
        for target, source in sources.items():
            options.ext_mnt.add(key=target, val=source)
        for kind, path in joined.items():
            options.join_ns.add(ns=kind, ns_file=path)
        if self.ticket.network_namespace:
            options.inherit_fd.add(key=NETWORK_KEY, fd=network)
            if self.ticket.network_lock != "SKIP":
                # Keeps that namespace silent until the sockets are complete.
                options.empty_ns = _CLONE_NEWNET
        self.ticket.inherit(options)
        return options

    def _on_notify(self, script: str, pid: int | None, descriptors: list[int]) -> bool:
        if script == "setup-namespaces":
            self.pid = pid or 0
            self.placeholder.replace(self.pid)
            if self._gate is not None:
                orphan.note(self.ticket.container_id, self.pid, own_network=self._own_network)
            if not self.terminal:
                return self._hold()
        elif script == "post-setup-namespaces" and self._uts is not None:
            hostname.put(*self._uts)  # CRIU has just written the saved one
        elif script == "orphan-pts-master":
            self._hand_over(descriptors[0])
        elif script == "post-restore" and self._gate is not None:
            if self.terminal:  # the engine may plug the network in only after this: until then it stays silent
                self._gate.wait(gate.READY, self._check_alive)
            else:
                self._gate.wait(gate.READY, self._check_alive, meanwhile=self._withhold)
        elif script == "network-unlock":
            if not self._is_on_trial:
                self._unsilence()
        elif script == "pre-resume":
            restrict.restrict(self.pid, self._flags)
            if self.terminal:
                if not self._hold():
                    return False
                self._withhold()
        return True

    def _hand_over(self, master: int) -> None:
        """Give the terminal to the engine, which waits for it within ``create``."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.connect(self.call.options["console-socket"])
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))
            console.sendmsg([b"/dev/ptmx"], [rights])

    def _hold(self) -> bool:
        """Let ``create`` return, then wait for ``start``."""
        listener, criu = self._listener, self._criu
        if listener is None or criu is None:
            return False
        self._report({"pid": self.pid})
        while True:
            ready, _w, _x = select.select([listener, criu.socket], [], [], _WATCH_SECONDS)
            if listener in ready:
                self._starter = listener.accept()[0]
                return True
            if criu.socket in ready or criu.process.poll() is not None:
                raise Abandoned("CRIU ended before the container was started")
            if not process.alive(self.pid) or not self.placeholder.exists():
                raise Abandoned("the container was removed before it was started")

    def _watch(self) -> None:
        """Give up when the restored init has ended, for which CRIU may wait for ever, or when nobody wants it."""
        ended = self.pid and not process.alive(self.pid)
        if ended or (self._gate is not None and self._gate.is_closed()):
            if self._criu is not None:
                self._criu.kill()
            raise Abandoned("its processes ended before they could run" if ended else "its migration was given up")

    def _check_alive(self) -> None:
        if self._criu is None or self._criu.process.poll() is not None:
            raise Abandoned("CRIU ended before the container could run")
        if not self.placeholder.exists() or (self.pid and not process.alive(self.pid)):
            raise Abandoned("the container was removed before it could run")

    @property
    def _is_on_trial(self) -> bool:
        """Whether it may yet be given up when it runs: nobody outside must hear it before that is decided.

        Not while it lacks memory. That takes too long, and is why the risk is another one then.
        """
        return self._gate is not None and not self.ticket.options.get("lazy_pages")

    @property
    def _is_silenced(self) -> bool:
        return self.ticket.network_namespace and self.ticket.network_lock != "SKIP"

    def _withhold(self) -> None:
        """Let nobody outside hear it before it is decided that it stays."""
        if self._is_on_trial and self._network is not None and self._is_silenced:
            netlock.withhold(self._network, process.interfaces(self.pid))

    def _unsilence(self) -> None:
        """Take back what the placeholder's hook has done: the sockets are complete."""
        if self._network is not None and self._is_silenced and not self._speaks:
            netlock.unsilence(self._network)
            self._speaks = True

    # -- endings ---------------------------------------------------------------------------------------------------

    def _report(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        if self._answer is not None:
            os.write(self._answer, data)
            os.close(self._answer)
            self._answer = None
        elif self._starter is not None:
            with contextlib.suppress(OSError):  # "start" was killed; the container's state speaks for itself
                self._starter.sendall(data)
            self._starter.close()

    def _clean(self, *, failed: bool) -> None:
        if self._criu is not None:
            self._criu.close()
        if failed:
            self._kill_restored()
            if self._gate is None and self._network is not None and self._is_silenced:
                self._unsilence()  # the namespace may be another container's
                # CRIU leaves its rules there when it fails, also when it has asked to unlock the network before.
                netlock.clear(f"/proc/self/fd/{self._network}", self._network)
            # Else the original may go on elsewhere with the same address: nothing from here may reset its connections.
            # Who has made this copy removes it, and lets the namespace speak if it stays (see create.forget).
            yards.clear(self.ticket.container_id)
        elif self._network is not None and self.ticket.held:  # not before: whoever restores it again has them still
            netlock.release(self._network, self.ticket.held)
        for place in (self.root, places.staged(self.ticket.container_id)):
            with contextlib.suppress(OSError):  # it was not mounted yet
                kernel.detach_mount(place)
        log = os.path.join(self.folder, LOG)
        with contextlib.suppress(OSError):  # a checkpoint on a read-only place: it stays in the restore's own folder
            shutil.copyfile(log, os.path.join(self.ticket.checkpoint, LOG))
            os.chmod(os.path.join(self.ticket.checkpoint, LOG), 0o600)
        kept = {places.PLACEHOLDER} if failed else set()
        if self._is_on_trial or (failed and self._gate is not None):
            kept.add(places.SILENCED)
        for name in places.PASSING - kept:
            path = os.path.join(self.folder, name)
            with contextlib.suppress(OSError):
                os.rmdir(path) if name in ("root", "staged") else os.unlink(path)

    def _kill_restored(self) -> None:
        """End what was restored, and wait until it is gone: what a killed CRIU has forked may still add rules."""
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            pids = {self.pid} if self.pid and process.alive(self.pid) else set()
            for folder in self.placeholder.cgroups:
                if self.ticket.container_id in folder:  # never a group that the container shares with others
                    pids.update(pid for pid in cgroup.members(folder) if process.alive(pid))
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def detach(holder_arguments: tuple[Any, ...], answer_reader: int) -> None:
    """Run a holder in a process of its own that this one is not waited for by.

    The restored init becomes the holder's child and, once the holder has ended, the child of the engine's shim,
    which is the nearest subreaper: that is how the shim learns its exit code.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.close(answer_reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    code = 1
    try:
        holder = Holder(*holder_arguments)
        if holder.terminal:
            # The engine reads these pipes to their end before it looks for the terminal.
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            os.close(null)
        holder.run()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
