# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a checkpoint of a running container, whatever its engine.

CRIU itself freezes the tasks (by ptrace). While they are frozen, CRIU's ``network-lock`` notification starts the copy
of the root file system and the volumes beside CRIU's own work, and ``post-dump`` waits for it, so not one tick of the
container lies between its memory and its files. CRIU thaws the tasks if anything fails, also when this process is
killed: its end of the RPC socket closes, the notification fails, CRIU rolls back.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    lineage,
    manifest,
    preflight,
    store,
    vigil,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Draft, Options, ms_since
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import (
    diagnosis,
    netlock,
    session,
    statistics,
    timers,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process, rootfs, spec, tcp, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target

LOG = "dump.log"
PRE_DUMP = "pre-dump"
NETWORK_KEY = "extRootNetNS"
_STOP_SECONDS = 20


class Dump:
    """One checkpoint being taken."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.target = draft.target
        self.options = draft.options
        self.facts = draft.facts
        self.partial = draft.partial
        self._copy: threading.Thread | None = None
        self._failure: Exception | None = None
        self._network: int | None = None  # the network namespace, where others share it and the container is ended
        self._held = draft.target.container_id[:12]
        self._tracks = self._can_track()

    # -- the steps -------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Take the checkpoint and return its manifest.

        Raises:
            CheckpointError: nothing was saved and the container runs on (or the message says otherwise).
        """
        if not self._tracks:
            return self._dump(None)
        with lineage.marks(self.target.pid) as marks:
            parent = self._parent(marks.last)
            marks.forget()
            if self.options.pre_dump:
                parent = self._pre_dump(parent)
            record = self._dump(parent)
            if self.options.leave_running:
                marks.remember(record["id"])
            return record

    def _dump(self, parent: str | None) -> dict[str, Any]:
        """Dump, building upon the images in a folder relative to ours, and return the manifest."""
        self.draft.copy_engine_files()
        begun = time.monotonic()
        try:
            with session.Session(self.options.executable, preexec=hurry) as criu:
                message = criu.request("DUMP", opts=self._criu_options(criu, parent))
                with Descriptors(message, self.partial), vigil.kept(self.target.pid, criu.process.pid):
                    criu.call(message, self._on_notify)
        except CriuError as e:
            if not self.draft.final:
                raise self._failed(e) from e
            # The container has been stopped on purpose while CRIU held it, CRIU may complain about that.
        finally:
            self._reopen_network()
        self.draft.timings["dump_ms"] = ms_since(begun)
        self._collect_statistics()
        if not self.draft.final:
            self._commit()
        else:
            self._complete_stopped()
        return manifest.read(self.draft.final)

    def _complete_stopped(self) -> None:
        """Add to a committed checkpoint what became known only when the container had ended.

        Raises:
            CheckpointError: it has not ended.
        """
        if self._failure is not None:
            raise CheckpointError(
                f"The checkpoint of {self.target.name} is complete in {self.draft.final}, but the container could not "
                f"be ended: {self._failure}. It runs on, so what it does from now on is not in the checkpoint. "
                "End it by hand, or take another checkpoint."
            )
        written_since = os.path.join(self.draft.final, "stats-dump")
        try:
            if os.path.exists(written_since):
                os.chmod(written_since, 0o600)
            manifest.write(self.draft.final, self.draft.record(self.draft.final))
        except OSError:
            pass  # the manifest that is there lacks the times, nothing that a restore needs

    def _can_track(self) -> bool:
        """Tell whether changes of memory are to be tracked, and can be."""
        asked = [name for name in ("pre_dump", "parent", "track_memory") if getattr(self.options, name)]
        if not asked or session.supports(self.options.executable, "mem_track"):
            return bool(asked)
        self.draft.warnings.append(
            f"{' and '.join(asked)} left out: this kernel does not track changed memory (CONFIG_MEM_SOFT_DIRTY is not "
            "set), so all memory was copied while the container was frozen."
        )
        return False

    def _parent(self, last: str) -> str | None:
        """Return the folder of the parent's images relative to ours; None if there is none that can be built upon.

        Args:
            last: id of the checkpoint since which changes of memory are known.
        """
        if not self.options.parent:
            return None
        entry = store.find(os.path.dirname(self.partial.base), self.target.name, self.options.parent)
        if (entry.manifest or {})["id"] != last:
            why = (
                "another one that tracked memory was taken after it"
                if last
                else "it was taken without track_memory, or the container was started or restored after it"
            )
            self.draft.warnings.append(f"all memory was saved, since {entry.name} cannot be built upon: {why}.")
            return None
        self.draft.parent = {"name": entry.name, "id": last}
        return f"../../{entry.name}/{store.IMAGES}"

    def _pre_dump(self, parent: str | None) -> str:
        """Copy the memory while the container runs; return the folder relative to the images."""
        folder = os.path.join(self.partial.path, PRE_DUMP)
        os.mkdir(folder, 0o700)
        try:
            with session.Session(self.options.executable) as criu:
                options = self._criu_options(criu, parent)
                message = criu.request("PRE_DUMP", opts=options)
                with Descriptors(message, self.partial, images=folder):
                    criu.call(message)
        except CriuError as e:
            raise self._failed(e) from e
        self.draft.timings["pre_dump_ms"] = ms_since(self.draft.started)
        return f"../{PRE_DUMP}"

    def _on_notify(self, script: str, _pid: int | None, _descriptors: list[int]) -> bool:
        if script == "network-lock":
            self._start_copy()
        elif script == "post-dump":
            self._start_copy()
            if self._copy is not None:
                self._copy.join()
            if self._failure is not None:
                return False
            if not self.options.leave_running:
                return self._commit_and_stop()
        return True

    def _start_copy(self) -> None:
        if self._copy is None:
            self._copy = threading.Thread(target=self._copy_files, name="copy")
            self._copy.start()

    def _copy_files(self) -> None:
        try:
            self.draft.copy_files()
        except (OSError, rootfs.RootfsError, tree.TreeError) as e:
            self._failure = e

    def _commit_and_stop(self) -> bool:
        """Complete the checkpoint, then end the container, all while CRIU holds it and its network still."""
        try:
            self._commit()
        except OSError as e:
            self._failure = e
            return False
        if self.facts.own_network and "network" in self.target.shared:
            self._network = os.open(f"/proc/{self.target.pid}/ns/net", os.O_RDONLY)
            netlock.hold(self._network, self._held, tcp.connections(process.tree(self.target.pid)))
        stopper = threading.Thread(target=self._stop, name="stop")
        stopper.start()
        # The engine only hears of the end once CRIU lets go, so wait for the kill itself: it ends the ptrace stop.
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline and self._failure is None:
            if process.state(self.target.pid) != "t":
                return True
            time.sleep(0.002)
        if self._failure is None:
            self._failure = CheckpointError(f"the engine did not end the container within {_STOP_SECONDS} s")
        return False

    def _reopen_network(self) -> None:
        """Let a network namespace that outlives the container speak again; CRIU leaves it shut after the end."""
        if self._network is None:
            return
        if self._failure is None:
            netlock.clear(f"/proc/self/fd/{self._network}", self._network)
        else:
            netlock.release(self._network, self._held)
        os.close(self._network)

    def _stop(self) -> None:
        try:
            self.target.stop()
        except Exception as e:  # whatever the engine's library raises: the container goes on and the user is told
            self._failure = e

    def _commit(self) -> None:
        timers.rearm(self.partial.images)
        self.draft.commit()

    def _collect_statistics(self) -> None:
        folder = self.draft.final or self.partial.path
        try:
            self.draft.statistics = dict(statistics.read_dump(folder))
        except (OSError, ValueError):
            return  # CRIU writes none when the container was stopped under its hands
        frozen = self.draft.statistics.get("freezing_time_us", 0) + self.draft.statistics.get("frozen_time_us", 0)
        self.draft.timings["frozen_ms"] = frozen / 1000

    # -- CRIU ------------------------------------------------------------------------------------------------------

    def _criu_options(self, criu: session.Session, parent: str | None) -> Any:
        rpc = session.rpc()
        options = rpc.criu_opts(
            images_dir_fd=-1,
            pid=self.target.pid,
            log_file=LOG,
            log_level=4,
            leave_running=self.options.leave_running,
            tcp_established=self.options.tcp_established,
            file_locks=self.options.file_locks,
            ext_unix_sk=self.options.ext_unix_sk,
            shell_job=self.facts.shell_job,
            orphan_pts_master=True,
            manage_cgroups=True,
            manage_cgroups_mode=rpc.IGNORE,
            ghost_limit=self.options.ghost_limit,
            timeout=self.options.timeout,
            notify_scripts=True,
            network_lock=getattr(rpc, self.facts.network_lock),
        )
        if not self.target.plain:
            options.root = spec.rootfs(self.target.bundle, self.target.config)
        for target in self.facts.external_mounts:
            options.ext_mnt.add(key=target, val=target)
        if self.facts.own_network:
            inode = process.namespace_inode(self.target.pid, "net")
            options.external.append(f"net[{inode}]:{NETWORK_KEY}")
        options.external.extend({key for key in self.facts.external_descriptors if key})
        if self._tracks:
            options.track_mem = True
        if parent is not None:
            options.parent_img = parent
        return options

    def _failed(self, error: CriuError) -> CheckpointError:
        """Word a failure, after making sure that the container is left as it was."""
        if error.died:
            vigil.mend(self.target.pid)
        log = os.path.join(self.partial.path, LOG)
        text = diagnosis.read_log(log)
        kept = self.partial.discard()
        running = _what_is_left(self.target)
        if self._failure is not None:
            reason = str(self._failure)
            if isinstance(self._failure, OSError) and self._failure.strerror:
                reason = _explain(self._failure, self.partial)
            return CheckpointError(
                f"The checkpoint of {self.target.name} was given up: {reason}. {running} CRIU's log: {kept}"
            )
        if error.died:
            return CheckpointError(
                f"The checkpoint of {self.target.name} failed: {error} before it had finished. {running} "
                f"Run it again; if it happens again, look for the out-of-memory killer in the kernel's log. "
                f"CRIU's log: {kept}"
            )
        found = diagnosis.diagnose(
            text, operation="dump", kernel=os.uname().release, criu_version=self.facts.criu_version
        )
        return CheckpointError(f"The checkpoint of {self.target.name} failed. {running} {found.message(kept)}")


class Descriptors:
    """Folders that CRIU gets as descriptor numbers, which must be open while it works."""

    def __init__(self, message: Any, partial: store.Partial, images: str | None = None) -> None:
        self._open = [
            os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (images or partial.images, partial.path)
        ]
        message.opts.images_dir_fd, message.opts.work_dir_fd = self._open

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)


def take(target: Target, options: Options, path: str, name: str, facts: preflight.Facts) -> dict[str, Any]:
    """Take a checkpoint of a container that ``preflight.examine`` has found fit.

    Returns:
        The manifest.
    Raises:
        CheckpointError: nothing was saved; the message says why, what to do and whether the container runs.
    """
    partial = store.begin(path, target.name, name)
    try:
        if partial.after_killed_run:
            vigil.mend(target.pid)  # CRIU may have been killed with it
        return Dump(Draft(target, options, facts, partial)).run()
    except CheckpointError:
        partial.discard()  # does nothing where that is done, or the checkpoint complete
        raise
    except OSError as e:
        kept = partial.discard()
        raise CheckpointError(
            f"The checkpoint of {target.name} failed: {_explain(e, partial)}. {_what_is_left(target)} "
            f"CRIU's log: {kept}"
        ) from e
    finally:
        partial.close()


def _what_is_left(target: Target) -> str:
    if process.alive(target.pid):
        return "The container is still running and nothing was saved."
    return "The container has ended meanwhile, and nothing was saved."


def _explain(error: OSError, partial: store.Partial) -> str:
    text = f"{error.strerror}: {error.filename or partial.path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += f". The disk of {partial.base} is full: free space, or choose another path"
    return text


def hurry() -> None:
    """Go before others on a busy host: a container stands still meanwhile."""
    os.setpriority(os.PRIO_PROCESS, 0, -10)
