# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems of the hosts and of the application image, made from Debian packages and kept in the cache.

Every entry of the cache carries a hash of its recipe in its name, is made under a name that ends in ``.part`` and
renamed when complete. So an entry that exists is whole, and a changed recipe makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .config import cache_folder
from .shell import LabError, Step, locked, run

SUITE, NEWER_SUITE = "trixie", "forky"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

NO_DOCS = "".join(
    f"{rule}\n"
    for rule in (
        "path-exclude=/usr/share/doc/*",
        "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/locale/*",
        "path-exclude=/usr/share/info/*",
        "force-unsafe-io",
    )
)


@dataclass(frozen=True)
class Recipe:
    """How to make one root file system: on top of another one, packages of the suite, then of the newer suite."""

    name: str
    base: str | None = None
    packages: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    version: int = 1

    def key(self) -> str:
        """Short hash that changes whenever the result would."""
        below = RECIPES[self.base].key() if self.base else f"{SUITE} {NEWER_SUITE} {NO_DOCS}"
        return hashlib.sha256(f"{self!r} {below}".encode()).hexdigest()[:12]


_ENGINES = ("docker.io", "docker-cli", "containerd", "runc", "crun", "podman")

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("base", packages=("ca-certificates", "iproute2", "procps", "python3", "tini")),
        Recipe("fresh", base="base", packages=("openssh-server",)),
        Recipe(
            "stable",
            base="fresh",
            packages=(
                *_ENGINES,
                "python3-docker",
                "python3-protobuf",
                "python3-grpcio",
                "containernetworking-plugins",
                "rsync",
                "iptables",
                "nftables",
                "tar",
                "zstd",
                "curl",
                "redis-tools",
                "checkpointctl",
                "netavark",
                "aardvark-dns",
                "iputils-ping",
                "kmod",
                "less",
                "strace",
                "age",
                "openssl",
                "python3-zstandard",
                "restic",
                "restic-rest-server",
                "python3-moto",  # with flask-cors a server for the S3 interface
                "python3-flask-cors",
            ),
            remove=("usr/lib/python3/dist-packages/botocore/data/[!s]*/20*",),  # 90 MB on services other than S3
            newer=("criu", "libcriu2", "python3-pycriu"),  # crun loads libcriu2 for a checkpoint of its own
        ),
        Recipe("current", base="stable", newer=_ENGINES),
        Recipe(
            "apps",
            base="base",
            packages=("redis-server", "postgresql", "nginx-light", "memcached", "util-linux", "busybox-static"),
            # PostgreSQL's JIT compiler would be half of the image; without it queries are interpreted.
            remove=(
                "usr/lib/*/libLLVM*",
                "usr/lib/*/libz3*",
                "usr/lib/postgresql/*/lib/bitcode",
                "usr/lib/postgresql/*/lib/llvmjit*",
                "usr/share/locale",
                "usr/share/i18n",
                "usr/share/doc",
                "usr/share/man",
                "usr/share/postgresql/*/man",
                "var/lib/apt/lists/*",
                "var/lib/postgresql/*/main",
            ),
        ),
    )
}


def path_of(name: str) -> Path:
    """Where the root file system lies, or will lie."""
    return cache_folder() / f"{name}-{RECIPES[name].key()}"


def ensure(name: str) -> Path:
    """Return the root file system, building it (and what it stands on) when the cache lacks it."""
    target = path_of(name)
    if not target.is_dir():
        with locked(cache_folder() / "build.lock", "another build of the cache"):
            _build(RECIPES[name])
    os.utime(target)
    return target


def prune(keep: set[Path]) -> None:
    """Remove entries of outdated recipes that nobody has used for two weeks. Only to be called while no lab is up."""
    keep = keep | {path_of(name) for name in RECIPES}
    with locked(cache_folder() / "build.lock", "another build of the cache"):
        for path in cache_folder().iterdir():
            unused_s = time.time() - path.stat().st_mtime
            if re.fullmatch(r"[a-z-]+-[0-9a-f]{12}(\.part)?", path.name) and path not in keep and unused_s > 14 * 86400:
                remove_tree(path)


def build_in_cache(target: Path, make: Callable[[Path], None]) -> None:
    """Let ``make`` fill a temporary name and rename it to ``target``. To be called under the build lock."""
    part = target.with_name(target.name + ".part")
    remove_tree(part)
    make(part)
    part.rename(target)


def remove_tree(path: Path) -> None:
    """Remove a file or folder, never entering another file system; nothing happens when there is none."""
    if os.path.lexists(path):
        run(["rm", "-rf", "--one-file-system", "--", str(path)])


def _build(recipe: Recipe) -> None:
    target = path_of(recipe.name)
    if target.is_dir():
        return
    if recipe.base:
        _build(RECIPES[recipe.base])
    log = cache_folder() / "log" / f"{recipe.name}.log"
    log.unlink(missing_ok=True)
    title = f"root file system '{recipe.name}'"

    def make(part: Path) -> None:
        if recipe.base:
            with Step(f"{title}: copying '{recipe.base}'", log) as step:
                step.run(["cp", "-a", "--reflink=auto", str(path_of(recipe.base)), str(part)])
        else:
            _debootstrap(part, title, log)
        if recipe.packages:
            _install(part, recipe.packages, (), title, log)
        if recipe.newer:
            _install(part, recipe.newer, ("-t", NEWER_SUITE), title, log)
        for pattern in (*recipe.remove, "var/cache/apt/*.bin"):
            for path in part.glob(pattern):
                remove_tree(path)

    build_in_cache(target, make)


def _debootstrap(root: Path, title: str, log: Path) -> None:
    mirror = machine_mirror()
    with Step(f"{title}: debootstrap of Debian {SUITE} from {mirror}", log) as step:
        debs = cache_folder() / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        step.run(
            [
                *_isolated(),
                "debootstrap",
                "--variant=minbase",
                f"--cache-dir={debs}",
                f"--keyring={KEYRING}",
                SUITE,
                str(root),
                mirror,
            ]
        )
    write(root / "etc/dpkg/dpkg.cfg.d/lab", NO_DOCS)
    write(root / "etc/apt/apt.conf.d/00lab", _machine_apt_settings())
    write(root / "etc/apt/preferences.d/lab", f"Package: *\nPin: release n={NEWER_SUITE}\nPin-Priority: 100\n")
    # Neither systemd nor another service manager runs in the hosts.
    write(root / "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n").chmod(0o755)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)


def _install(root: Path, packages: tuple[str, ...], options: tuple[str, ...], title: str, log: Path) -> None:
    """Install packages inside a private set of namespaces, so that a killed build leaves no mount or process."""
    suites = (SUITE, NEWER_SUITE) if options else (SUITE,)
    write_sources(root, suites)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    script = """
        set -eu
        mount --make-rprivate /
        mount --bind "$CACHE/debs" "$ROOT/var/cache/apt/archives"
        mount -t proc proc "$ROOT/proc"
        export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
        in_root() { chroot "$ROOT" "$@"; }
        in_root apt-get update
        in_root apt-get install -y --no-install-recommends -o APT::Keep-Downloaded-Packages=true "$@"
    """
    what = packages[0] if len(packages) == 1 else f"{packages[0]} and {len(packages) - 1} more"
    suite = f" from {NEWER_SUITE}" if options else ""
    with Step(f"{title}: installing {what}{suite}", log) as step:
        step.run(
            [*_isolated(), "sh", "-c", script, "install", *options, *packages],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": str(root), "CACHE": str(cache_folder())},
        )
    write_sources(root, (SUITE,))


def _isolated() -> list[str]:
    """Prefix that ends a command with all its children when the lab is killed."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def write_sources(root: Path, suites: tuple[str, ...]) -> None:
    """Make the root file system install from these suites of the machine's mirror."""
    text = f"Types: deb\nURIs: {machine_mirror()}\nSuites: {' '.join(suites)}\nComponents: main\nSigned-By: {KEYRING}\n"
    write(root / "etc/apt/sources.list.d/debian.sources", text)


def write(path: Path, text: str) -> Path:
    """Write a small file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def machine_mirror() -> str:
    """The Debian mirror that this machine installs from; security and foreign archives are passed over."""
    listing = run(["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(RELEASE)"], check=False).stdout
    for line in listing.splitlines():
        site, _space, rest = line.partition(" ")
        if rest.startswith("Debian ") and "security" not in line and site.startswith("http"):
            return site.rstrip("/")
    return DEFAULT_MIRROR


def _machine_apt_settings() -> str:
    """The machine's settings on proxies and on the age of release files, which hold for its mirror."""
    wanted = ("Acquire::Check-Valid-Until ", "Acquire::Check-Date ", "Acquire::http::Proxy ", "Acquire::https::Proxy ")
    lines = [line for line in run(["apt-config", "dump"]).stdout.splitlines() if line.startswith(wanted)]
    return "".join(f"{line}\n" for line in (*lines, 'Acquire::Languages "none";', 'APT::Install-Recommends "false";'))


def install_tools() -> None:
    """Install by apt what the lab needs on the machine and lacks; LabError when that fails."""
    needs = {
        "debootstrap": "debootstrap",
        "ip": "iproute2",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
        "unshare": "util-linux",
        "nsenter": "util-linux",
        "setpriv": "util-linux",
        "tar": "tar",
    }
    missing = sorted({package for tool, package in needs.items() if not shutil.which(tool)})
    if not Path(KEYRING).exists():
        missing.append("debian-archive-keyring")
    if not missing:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with Step(f"installing on this machine: {' '.join(missing)}", cache_folder() / "log" / "machine.log") as step:
        install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        try:
            step.run(install, env=env)
        except LabError:
            step.run(["apt-get", "update"], env=env)
            step.run(install, env=env)
