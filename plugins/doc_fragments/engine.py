# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that talk to an engine."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules."""

    DOCUMENTATION = r"""
options:
  engine:
    description:
      - The container engine.
      - When it is not given, a container that is to be saved is looked for on every engine of the host; its name must
        be unique there. A restore takes the engine that the checkpoint is from.
      - V(cri) is the interface by which Kubernetes speaks to containerd and CRI-O. Its containers have names of the
        form V(namespace/pod/container), or V(pod/container) in the namespace V(default). It is asked only for such
        names.
      - V(runc) and V(crun) are for containers that were started with these programs themselves. What was saved from
        under the one can be restored under the other, in a new bundle below C(/var/lib/stillpoint/bundles).
      - V(process) is for processes that are in no container. It must be named.
    type: str
    choices: [docker, podman, containerd, cri, runc, crun, process]
  criu_executable:
    description: Name or path of CRIU on the host.
    type: str
    default: criu
  timeout:
    description: Seconds that CRIU may take to freeze a container, and that an engine may take to answer.
    type: int
    default: 60
  executable:
    description:
      - Path of podman, runc or crun; the default is the name of the engine, looked for as commands are.
      - Only of use with O(engine), or for a restore by the engine that the checkpoint is from.
    type: path
  runtime_root:
    description:
      - Folder in which runc or crun keeps its state, when their containers were started with another C(--root).
      - The default is V(/run/runc) or V(/run/crun).
    type: path
  docker_host:
    description:
      - Socket of the Docker daemon.
      - It must be the daemon of the managed host itself, since CRIU works on that host's processes.
    type: str
    default: unix:///var/run/docker.sock
  tls:
    description: Use TLS without checking the daemon's certificate. For a C(tcp://) O(docker_host).
    type: bool
    default: false
  validate_certs:
    description: Use TLS and check the daemon's certificate.
    type: bool
    default: false
  ca_path:
    description: Certificate of the authority that signed the daemon's certificate.
    type: path
  client_cert:
    description: Certificate to show to the daemon.
    type: path
  client_key:
    description: Key of O(client_cert).
    type: path
  api_version:
    description: Version of the Docker API to speak; V(auto) asks the daemon.
    type: str
    default: auto
  containerd_address:
    description: Socket of containerd, for the engine V(containerd). It must be the one of the managed host itself.
    type: path
    default: /run/containerd/containerd.sock
  containerd_namespace:
    description:
      - Namespace of containerd in which the containers are (V(default) is that of C(ctr) and of C(nerdctl)).
      - The namespaces C(moby) and C(k8s.io) belong to Docker and to Kubernetes; use their engines instead.
    type: str
    default: default
  cri_endpoint:
    description:
      - Socket of the CRI server of the managed host.
      - "When it is not given, the first that exists of V(unix:///run/containerd/containerd.sock),
        V(unix:///var/run/crio/crio.sock) and V(unix:///run/cri-dockerd.sock)."
    type: str
requirements:
  - CRIU 3.17 or newer, and new enough for the kernel (the role P(stillpoint.criu.criu#role) sees to it)
  - Python module pycriu (package python3-pycriu or python3-criu)
  - For Docker, the Docker SDK for Python (package python3-docker)
  - For containerd and CRI, the Python module grpc (package python3-grpcio)
  - For Podman, version 4.3 or newer; containers of root only
"""
