# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine offers, and the words in which engines speak of containers to each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import store
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target
    from ansible_collections.stillpoint.criu.plugins.module_utils._oci.layers import Layers

# The names under which the role registers the restore runtime, for either stock runtime.
RUNTIMES = {"runc": "stillpoint", "crun": "stillpoint-crun"}
WRAPPERS = {"runc": "/usr/local/sbin/stillpoint-runtime", "crun": "/usr/local/sbin/stillpoint-runtime-crun"}

# Values of Portable.network; "networks" means those listed.
NO_NETWORK = "none"
HOST_NETWORK = "host"
NETWORKS = "networks"
SHARED_NETWORK = "shared"  # another container's, or a pod's


@dataclass(frozen=True)
class Wishes:
    """How the new container is to differ from the recorded one."""

    name: str
    image_policy: str = "exact"  # exact: the very same image; name: whatever has the name now
    published_ports: list[str] | None = None  # None: as recorded; else ["8080:80/tcp", "127.0.0.1:53:53/udp"]
    networks: dict[str, str] = field(default_factory=dict)  # {recorded network: network to join instead}
    ignore_static_ip: bool = False
    ignore_static_mac: bool = False
    pid_namespace: bool = False  # a process of the host may get a new one, to have its number again
    restores_processes: bool = True  # False: it starts afresh on its saved files, under the runtime that it had
    throw_away: bool = False  # a copy to look at and remove; what it is made of is described by isolation.isolate


@dataclass(frozen=True)
class Portable:
    """What the OCI specification does not say of a container, in words that every engine understands.

    Written into each checkpoint, so that another engine than the one that ran the container can make it again.
    """

    image: str  # name
    image_id: str  # digest of its configuration, "sha256:..."; "" where there is no image
    image_digests: tuple[str, ...] = ()  # references with a digest
    labels: dict[str, str] = field(default_factory=dict)
    network: str = NO_NETWORK
    # {name: {"address": IPv4, "address6": IPv6, "mac": text, "aliases": [...]}}, empty texts where there is none
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    ports: tuple[str, ...] = ()  # "[address:]host_port:container_port/protocol"
    # [{"kind": "bind" | "volume" | "tmpfs", "destination", "source", "name", "options": [...]}]: what the user gave it
    mounts: tuple[dict[str, Any], ...] = ()
    stdin_open: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    restart: str = "no"  # no, always, unless-stopped, on-failure or on-failure:<times>
    shm_bytes: int = 0  # size of /dev/shm; 0 where unknown

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Portable:
        """Read what :meth:`to_dict` gave; fields of a later version are passed over."""
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        for name in ("image_digests", "ports", "mounts"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint tells of its container."""

    engine: str  # that took it
    container_id: str
    name: str
    record: dict[str, Any]  # that engine's own; another engine must not look into it
    portable: Portable
    config: dict[str, Any]  # the OCI runtime specification
    # What will be brought back: [{"archive": path, "destination": in the container, "kind": of Volume}]
    volumes: list[dict[str, str]] = field(default_factory=list)
    path: str = ""  # folder of the checkpoint
    rootfs_saved: bool = True
    shell_job: bool = False  # it belonged to a session outside of it
    output: tuple[str, ...] = ()  # what its descriptors 1 and 2 led to, where that were files
    # Files of the host that its descriptors 0 to 2 led to, /dev/null where they led elsewhere.
    stdio: tuple[str, ...] = ("/dev/null",) * 3


@dataclass(frozen=True)
class Created:
    """A container that was made and not started."""

    container_id: str
    addresses_lost: list[str] = field(default_factory=list)  # networks in which it has not its recorded address
    files_first: bool = False  # it cannot be started before its saved files lie in its root file system
    # Its start puts these on the wire before it calls the runtime: {address: interface of the host that a macvlan of it
    # lies on, "" for a bridge}.
    early: dict[str, str] = field(default_factory=dict)
    late: str = ""  # why it gets its addresses only once its connections are restored, if it does


@dataclass(frozen=True)
class Storage:
    """Where a container that was made and not started keeps its files, as paths of the host."""

    root: Layers | str  # its root file system: the layers to mount, or where it is mounted already
    volumes: dict[str, str]  # {mount point: folder}


class Common:
    """What most engines have in common."""

    NAME = ""
    UNSEEN = ""
    ISOLATES = False

    def save_image(self, image: dict[str, Any], *, named: bool) -> list[str]:
        """Return the command that writes an image, in a form that the others read, to its output."""
        raise EngineError(f"{self.NAME} cannot hand images over; bring {image['name']} to the target first.")

    def load_image(self) -> list[str]:
        """Return the command that reads an image from its input."""
        raise EngineError(f"{self.NAME} cannot take images over; bring the container's image to this host first.")

    def plugs_in_late(self, _plan: Any) -> bool:
        """Tell whether a container of that plan gets its network only when its runtime has created it, or none."""
        return False

    def ping(self) -> None:
        """Do nothing: it has no daemon that may be missing."""

    def restored_name(self, wish: str | None, saved: str) -> str:
        """Return the name for a restored container: that wished for, else its old one and "-restored".

        Raises:
            CheckpointError: it cannot be the name of a container.
        """
        return store.check_name(wish or f"{saved}-restored", "container")


if TYPE_CHECKING:

    class Engine(Protocol):
        """A connection to one engine of this host. Every method may raise EngineError."""

        NAME: str
        UNSEEN: str  # a sentence on containers of the host that it does not see, "" when there are none such
        ISOLATES: bool  # whether it can make a copy that has no network and takes its volumes with it when it goes

        def select(self, names: list[str], labels: list[str]) -> list[str]:
            """Return the names of the wanted containers: those named, and all running ones with all the labels."""

        def describe(self, name: str, bind_mounts: list[str]) -> Target:
            """Return all that a dump needs to know of a running container."""

        def restored_name(self, wish: str | None, saved: str) -> str:
            """Return the name for a container restored from the checkpoint of ``saved``, as the user wishes or else."""

        def plan(self, saved: Saved, wishes: Wishes) -> Any:
            """Work out how to make a saved container again; refuse what would be refused later. Changes nothing."""

        def create(self, plan: Any) -> Created:
            """Make the planned container without starting it; nothing is left on failure."""

        def storage(self, container: str) -> Storage:
            """Return where a container that was created and not started keeps its files."""

        def start(self, container: str) -> None:
            """Start a created container, which restores it if it has a ticket."""

        def remove(self, container: str, plan: Any) -> None:
            """Remove a half-made container and what came with it; without a plan only nameless volumes did."""

        def save_image(self, image: dict[str, Any], *, named: bool) -> list[str]:
            """Return the command that writes an image, with its name or without, for any other engine to its output."""

        def load_image(self) -> list[str]:
            """Return the command that reads an image from its input."""

        def plugs_in_late(self, plan: Any) -> bool:
            """Tell whether a container of that plan gets its network only when its runtime has created it, or none."""

        def ping(self) -> None:
            """See that its daemon answers, which knows what it has started only if it is there until that runs."""

        def end(self, container: str) -> None:
            """End a container at once; its restart policy does not start it again."""

        def discard(self, container: str) -> None:
            """Remove a container that does not run; its volumes stay."""

        def checks(self, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
            """Return the checks of a restored container; each returns what is wrong, or "" when all is well.

            In this order: status, process, api, logs, stats, and command when one is given.
            """

        def summary(self, name: str) -> dict[str, Any] | None:
            """Return {id, name, pid, status, started_at, image, runtime, networks, ports}; None without container.

            ``status`` is "running" for one that runs; ``started_at`` changes with every start.
            """

        def all_ids(self) -> list[str]:
            """Return the ids of all its containers, running or not."""
