# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: its images, identified as other engines identify them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import ImageMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import CallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import Client

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
# Names without a registry are those of this one, for every engine.
_REGISTRY = "docker.io"


@dataclass(frozen=True)
class Image:
    """An image that containerd has, for this host's architecture."""

    name: str
    id: str  # digest of its configuration: what other engines call an image by
    target: str  # digest that its name stands for: of the index, or of the manifest
    manifest: str  # digest
    chain: str  # key of the snapshot that holds its files, once it is unpacked

    @property
    def reference(self) -> str:
        """Its name with a digest in the place of the tag."""
        folder, slash, last = self.name.partition("@")[0].rpartition("/")
        return f"{folder}{slash}{last.partition(':')[0]}@{self.target}"


def full_name(name: str) -> str:
    """Return an image's name as containerd has it: with registry and tag."""
    first, slash, _rest = name.partition("/")
    if not slash:
        name = f"{_REGISTRY}/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"{_REGISTRY}/{name}"
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def get(client: Client, name: str) -> Image | None:
    """Return the image of a name; None where there is none, or not for this architecture.

    Raises:
        CallError: containerd does not answer.
    """
    try:
        record = client.call(f"find the image {name}", "images.Get", name=name)["image"]
        return _read(client, record)
    except CallError as e:
        if e.code == "NOT_FOUND":
            return None
        raise


def find(client: Client, image_id: str) -> Image | None:
    """Return an image by the digest of its configuration, its manifest or its index; None where there is none.

    Raises:
        CallError: containerd does not answer.
    """
    for record in client.call("list its images", "images.List")["images"]:
        try:
            image = _read(client, record)
        except CallError as e:
            if e.code != "NOT_FOUND":  # some of an image's content may be elsewhere
                raise
            continue
        if image is not None and image_id in (image.id, image.manifest, image.target):
            return image
    return None


def choose(client: Client, image: dict[str, Any], policy: str, namespace: str) -> Image:
    """Return the image to make a container of.

    Args:
        client: the connection.
        image: {"name", "id"} of the checkpoint.
        policy: "exact" or "name".
        namespace: that of the connection, for errors.
    Raises:
        EngineError: the host lacks it.
    """
    name = full_name(image["name"])
    here = get(client, name)
    if here is not None and (policy == "name" or image["id"] in (here.id, here.manifest, here.target)):
        return here
    other = find(client, image["id"]) if policy == "exact" else None
    if other is not None:
        return other
    if here is None:
        raise ImageMissing(
            f"The image {name} ({image['id'][:19]}) is not in containerd's namespace {namespace} on this host. Bring "
            f"it here first (ctr -n {namespace} images pull {name}, or save it on the source and "
            f"ctr -n {namespace} images import here), then run this again.",
            named=False,
        )
    raise ImageMissing(
        f"The image {name} in containerd's namespace {namespace} is {here.id[:19]}, the checkpoint was taken from "
        f"{image['id'][:19]}. Its files may not fit the saved memory. Bring the same image here, or set image_policy "
        "to name to use this one.",
        named=True,
    )


def _read(client: Client, record: dict[str, Any]) -> Image | None:
    """Follow a name to the image's configuration; None when there is nothing for this architecture."""
    target = record["target"]["digest"]
    manifest = target
    content = _json(client, target)
    if "manifests" in content:
        found = _fitting(content["manifests"])
        if found is None:
            return None
        manifest = found
        content = _json(client, manifest)
    configuration = content["config"]["digest"]
    chain = ""
    for layer in _json(client, configuration)["rootfs"]["diff_ids"]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest() if chain else layer
    return Image(record["name"], configuration, target, manifest, chain)


def _fitting(manifests: list[dict[str, Any]]) -> str | None:
    machine = os.uname().machine
    wanted = _ARCHITECTURES.get(machine, machine)
    for manifest in manifests:
        platform = manifest.get("platform")
        if platform is None or (platform.get("os"), platform.get("architecture")) == ("linux", wanted):
            digest: str = manifest["digest"]
            return digest
    return None


def _json(client: Client, digest: str) -> dict[str, Any]:
    pieces = client.stream(f"read {digest}", "content.Read", digest=digest)
    content: dict[str, Any] = json.loads(b"".join(piece["data"] for piece in pieces))
    return content
