# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall rules that keep a network still: CRIU's own, which a killed CRIU leaves behind, and ours.

A container whose network namespace still holds them runs, but answers nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PREFIX = "CRIU"
_OURS = "stillpoint"
_SHUT = f"{_OURS}-moving"
_ATTEMPTS, _ATTEMPT_SECONDS = 20, 0.1
_WITHHOLDING = f"{_OURS}-resets-"
_WITHHELD = "2m"  # at most: from the network's set-up to the silence it takes a second or so
# A packet of an established connection that reaches the new namespace before its socket is restored would be answered
# with a reset. CRIU's own rules come too late for that: engines plug the network in before CRIU gets there.
# %s is the rule for ARP, if there is one.
_SILENCE = """
enter="nsenter --net=/proc/$(sed -n 's/.*"pid": *\\([0-9][0-9]*\\).*/\\1/p')/ns/net"
if command -v nft >/dev/null; then
    %s
    exec $enter nft "table inet stillpoint {
        chain input { type filter hook input priority -300; policy drop; }
        chain output { type filter hook output priority -300; policy drop; }
    }"
fi
for tool in iptables ip6tables; do
    for chain in INPUT OUTPUT; do $enter $tool --wait --insert $chain --jump DROP || exit 1; done
done
"""
# Without it, which takes a kernel with tables for ARP, neighbours may ask and hear of the address too early.
_SILENCE_ARP = """$enter nft "table arp stillpoint {
        chain input { type filter hook input priority -300; policy drop; }
        chain output { type filter hook output priority -300; policy drop; }
    }" 2>/dev/null || true"""


def clear(namespace: str, *descriptors: int) -> list[str]:
    """Remove CRIU's tables and chains from a network namespace, and our table that silences it.

    Only call this when no CRIU works on that namespace.

    Args:
        namespace: its path.
        descriptors: those that the path needs.
    Returns:
        What was removed, for instance ``["inet CRIU-71"]``.
    """
    enter = ["nsenter", f"--net={namespace}"]
    removed = []
    for name in _tables(enter, *descriptors):
        if name.split()[1] != _OURS and not name.split()[1].startswith(f"{_PREFIX}-"):
            continue
        if _run([*enter, "nft", "delete", "table", *name.split()], *descriptors).returncode == 0:
            removed.append(name)
    for tool in ("iptables", "ip6tables"):
        if _run([*enter, tool, "-n", "-L", _PREFIX], *descriptors).returncode != 0:
            continue
        for chain in ("INPUT", "OUTPUT"):
            _run([*enter, tool, "-D", chain, "-j", _PREFIX], *descriptors)
        _run([*enter, tool, "-F", _PREFIX], *descriptors)
        _run([*enter, tool, "-X", _PREFIX], *descriptors)
        removed.append(f"{tool} chain {_PREFIX}")
    return removed


def hold(namespace: int, name: str, connections: list[tuple[str, int, str, int]]) -> None:
    """Let no peer hear that established connections have lost their process, until :func:`release`.

    In a namespace that outlives a container, the kernel answers what still comes for its connections with a reset, so
    there would be nobody to talk to after the restore. Only these resets are dropped; everything else goes through.
    Without nft nothing happens.

    Args:
        namespace: open descriptor of the network namespace.
        name: whose connections they are.
        connections: (own address, own port, peer's address, peer's port) of each.
    """
    rules = []
    for family, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")):
        chosen = [end for end in connections if (":" in end[0]) == (family == "ip6")]
        if not chosen:
            continue
        elements = ", ".join(" . ".join(map(str, end)) for end in chosen)
        rules.append(
            f"set {family}-held {{ type {kind} . inet_service . {kind} . inet_service; "
            f"elements = {{ {elements} }}; }}\n"
            f"chain {family}-held {{ type filter hook output priority -300; policy accept; tcp flags & rst == rst "
            f"{family} saddr . tcp sport . {family} daddr . tcp dport @{family}-held drop; }}"
        )
    if rules:
        table = "\n".join([f"table inet {_held(name)} {{", *rules, "}"])
        _run(["nsenter", f"--net=/proc/self/fd/{namespace}", "nft", "--file", "-"], namespace, text=table)


def release(namespace: int, name: str) -> None:
    """Take back what :func:`hold` has done."""
    _run(["nsenter", f"--net=/proc/self/fd/{namespace}", "nft", "delete", "table", "inet", _held(name)], namespace)


def shut(namespace: int) -> None:
    """Let nothing in or out of a network namespace, given as an open descriptor, until :func:`reopen`.

    Not even an answer to who has its address, so that the address may live elsewhere meanwhile.

    Raises:
        OSError: it could not be shut.
    """
    chain = "chain {0} {{ type filter hook {0} priority -300; policy drop; }}"
    rules = "".join(
        f"table {family} {_SHUT} {{\n" + "\n".join(chain.format(hook) for hook in ("input", "output")) + "\n}\n"
        for family in ("inet", "arp")
    )
    done = _run(["nsenter", f"--net=/proc/self/fd/{namespace}", "nft", "--file", "-"], namespace, text=rules)
    if done.returncode != 0:
        raise OSError(f"nft could not shut the container's network: {done.stderr.decode(errors='replace').strip()}")


def reopen(namespace: int) -> None:
    """Take back what :func:`shut` has done; nothing happens if it was not."""
    for family in ("inet", "arp"):
        enter = ["nsenter", f"--net=/proc/self/fd/{namespace}"]
        _run([*enter, "nft", "delete", "table", family, _SHUT], namespace)


def _held(name: str) -> str:
    return f"{_OURS}-{name}"


def silence_hook(*, elsewhere: bool) -> dict[str, Any]:
    """Return an OCI hook that silences the network namespace of a container being created, until :func:`unsilence`.

    Args:
        elsewhere: its addresses still live in another place, so nobody may hear that they are here.
    """
    script = _SILENCE % (_SILENCE_ARP if elsewhere else "")
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"PATH={_path()}"]}


def withhold(namespace: int, interfaces: list[str]) -> None:
    """Let a silenced network namespace hear again and speak to itself, but to nobody else, until :func:`unsilence`.

    What its processes send is dropped where they are not told so. Where the kernel cannot do that (before 5.16) the
    namespace stays silenced.

    Args:
        namespace: open descriptor of the network namespace.
        interfaces: names of those that lead out of it.
    """
    held = ""
    if interfaces:
        # TCP must notice, to know what is still to be sent, and keeps it to itself. It would not if its packets got so
        # far that they wait for the answer to a question about a neighbour, which is dropped.
        rule = 'type filter hook output priority -300; oifname != "lo" meta l4proto tcp drop;'
        held += f"table inet {_OURS} {{\nchain output {{ {rule} }}\n}}\n"
        chains = "".join(
            f'chain held-{number} {{ type filter hook egress device "{interface}" priority -300; policy drop; }}\n'
            for number, interface in enumerate(interfaces)
        )
        held += f"table netdev {_OURS} {{\n{chains}}}\n"
    _in_one(namespace, _removal("inet", "arp") + held) or _in_one(namespace, _removal("inet") + held)


def unsilence(namespace: int) -> None:
    """Let a silenced network namespace, given as an open descriptor, speak again; see :func:`silence_hook`."""
    enter = ["nsenter", f"--net=/proc/self/fd/{namespace}"]
    if shutil.which("nft", path=_path()) is None:
        for tool in ("iptables", "ip6tables"):
            for chain in ("INPUT", "OUTPUT"):
                _run([*enter, tool, "--wait", "--delete", chain, "--jump", "DROP"], namespace)
        return
    families = ("inet", "arp", "netdev")
    if _in_one(namespace, _removal(*families)):  # faster than several, but the kernel may lack one of them
        return
    for _attempt in range(_ATTEMPTS):  # a container that stayed mute would be as good as lost
        for family in families:
            _in_one(namespace, _removal(family))
        left = _listed(enter, namespace)
        if left is not None and not any(name.split()[1] == _OURS for name in left):
            return
        time.sleep(_ATTEMPT_SECONDS)


def _removal(*families: str) -> str:
    """Return what removes our tables of some families; to add them first lets that succeed where there are none."""
    return "".join(f"table {family} {_OURS}\ndelete table {family} {_OURS}\n" for family in families)


def _in_one(namespace: int, text: str) -> bool:
    enter = ["nsenter", f"--net=/proc/self/fd/{namespace}"]
    return _run([*enter, "nft", "--file", "-"], namespace, text=text).returncode == 0


@contextlib.contextmanager
def resets_withheld(addresses: dict[str, str]) -> Iterator[None]:
    """Let no peer hear that a new network namespace knows nothing of the connections that will be restored in it.

    For engines that plug the network in before a hook can silence it. Only answers to packets of unknown connections
    are dropped, on their way through this host: new connections may be refused and others may be ended, and who
    misses an answer gets it with its next packet. If this process is killed, the kernel forgets the addresses by
    itself, and what is left of the rules, which then does nothing, goes with the next call. Where nft or the kernel
    cannot do it nothing happens.

    Args:
        addresses: {address of the container: interface of this host that its macvlan lies on, "" for a bridge}.
    """
    tables = _withholding(f"{_WITHHOLDING}{os.getpid()}", addresses)
    if tables:
        for left in _tables([]):
            _family, name = left.split()
            if name.startswith(_WITHHOLDING) and not os.path.exists(f"/proc/{name[len(_WITHHOLDING) :]}"):
                _run(["nft", "delete", "table", *left.split()])
    for text in tables.values():
        _run(["nft", "--file", "-"], text=text)
    try:
        yield
    finally:
        for table in tables:
            _run(["nft", "delete", "table", *table.split()])


def _withholding(name: str, addresses: dict[str, str]) -> dict[str, str]:
    """Return {family and name of a table: its text}, for the arguments of :func:`resets_withheld`."""
    sets, rules = [], []
    for protocol, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")):
        chosen = ", ".join(address for address in addresses if (":" in address) == (protocol == "ip6"))
        if chosen:
            kept = f"type {kind}; flags timeout; timeout {_WITHHELD}"
            sets.append(f"set {protocol}-held {{ {kept}; elements = {{ {chosen} }}; }}")
            # Other resets acknowledge something: those that refuse a connection, and those by which a process ends one.
            rules.append(f"{protocol} saddr @{protocol}-held tcp flags & (rst | ack) == rst drop;")
    # What a bridge hands on, to its host too, enters by one of its ports. What a macvlan sends leaves by its interface,
    # or for a neighbour on the same one is handled as if that had received it.
    interfaces = sorted(set(addresses.values()) - {""})
    hooks = {
        "bridge": ["prerouting"] if "" in addresses.values() else [],
        "netdev": [f'{place} device "{interface}"' for interface in interfaces for place in ("ingress", "egress")],
    }
    found = {}
    for family in filter(hooks.get, hooks):
        chains = [
            f"chain held-{number} {{ type filter hook {hook} priority -300; policy accept; {' '.join(rules)} }}"
            for number, hook in enumerate(hooks[family])
        ]
        found[f"{family} {name}"] = "\n".join([f"table {family} {name} {{", *sets, *chains, "}"])
    return found


def _tables(enter: list[str], *descriptors: int) -> list[str]:
    """Return family and name of each table, for instance ``["inet CRIU-71"]``; none where they cannot be listed."""
    return _listed(enter, *descriptors) or []


def _listed(enter: list[str], *descriptors: int) -> list[str] | None:
    """Return what :func:`_tables` does; None where they cannot be listed."""
    listed = _run([*enter, "nft", "--json", "list", "tables"], *descriptors)
    if listed.returncode != 0:
        return None
    try:
        entries = json.loads(listed.stdout)["nftables"]
    except (ValueError, KeyError):
        return None
    return [f"{entry['table']['family']} {entry['table']['name']}" for entry in entries if "table" in entry]


def _path() -> str:
    """Return where programs are looked for: those of root, too, which not every way to a host has in its path."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _run(argv: list[str], *descriptors: int, text: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PATH": _path(), "LC_ALL": "C"}
    try:
        # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
        return subprocess.run(
            argv,
            input=text.encode(),
            capture_output=True,
            check=False,
            env=environment,
            timeout=30,
            pass_fds=descriptors,
        )
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(argv, 127, b"", b"")
