#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: criu_info
short_description: Tell what CRIU, the kernel and the container engines of a host can do together
version_added: 0.1.0
description:
  - Looks at CRIU, pycriu, the kernel, the CPU, the cgroup version and the container engines of a host, and says in
    plain words what checkpoint and restore can do there, what not, and what to do about it.
  - Never fails because something is missing. Use RV(verdict.fails) to decide.
author:
  - Stillpoint contributors (@stillpoint)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the same result, because it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show, because it changes nothing.
    support: none
  idempotent:
    description: Can be run any number of times; it never changes anything.
    support: full
  platform:
    description: Linux hosts. The module must run as root for a true answer of C(criu check).
    platforms: linux
    support: full
options:
  criu_executable:
    description:
      - Name or absolute path of the CRIU program.
      - A name is searched in E(PATH) and in the folders for administrators, such as C(/usr/sbin).
    type: str
    default: criu
seealso:
  - name: CRIU
    description: The program that does the work.
    link: https://criu.org/
"""

EXAMPLES = r"""
- name: Look at what this host can do
  stillpoint.criu.criu_info:
  register: host

- name: Stop here if nothing can be saved on this host
  ansible.builtin.assert:
    that: host.verdict.fails | length == 0
    fail_msg: "{{ host.verdict.fails | map(attribute='text') | join(' ') }}"

- name: Show what is limited
  ansible.builtin.debug:
    msg: "{{ host.verdict.limited }}"
"""

RETURN = r"""
criu:
  description: CRIU on this host.
  returned: always
  type: dict
  contains:
    path:
      description: Absolute path of the program. V(null) if it was not found.
      type: str
      sample: /usr/sbin/criu
    version:
      description: Its version. V(null) if it does not run.
      type: str
      sample: 4.2.1
    works:
      description: Whether C(criu check) passes and the version fits the kernel.
      type: bool
    check_output:
      description: Lines of C(criu check --all), without its verdict.
      type: list
      elements: str
    features:
      description: Features that this CRIU knows, and whether they work here.
      type: dict
      sample: {mem_dirty_track: false, uffd: true}
    pycriu:
      description: The Python module with CRIU's messages, as seen by the module's interpreter.
      type: dict
      contains:
        available:
          description: Whether it can be imported.
          type: bool
        version:
          description: Its version, where the package tells it.
          type: str
        error:
          description: Why it cannot be imported.
          type: str
kernel:
  description: The running kernel.
  returned: always
  type: dict
  contains:
    release:
      description: Its release.
      type: str
      sample: 6.12.48+deb13-amd64
    config:
      description: Options that matter, without C(CONFIG_). Empty where the configuration cannot be read.
      type: dict
      sample: {CHECKPOINT_RESTORE: "y", MEM_SOFT_DIRTY: "n"}
cgroup:
  description: Control groups.
  returned: always
  type: dict
  contains:
    version:
      description: V(2) where C(/sys/fs/cgroup) is the unified hierarchy, else V(1).
      type: int
cpu:
  description: The first CPU.
  returned: always
  type: dict
  contains:
    vendor:
      description: Vendor.
      type: str
    model:
      description: Model.
      type: str
    flags:
      description: Features, sorted.
      type: list
      elements: str
engines:
  description: Container engines whose program is installed, and runc and crun, which can be used without one.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the engine.
      type: str
      sample: docker
    version:
      description: Version of the engine. V(null) if it does not answer.
      type: str
    runtimes:
      description: OCI runtimes that the engine can start.
      type: list
      elements: str
    default_runtime:
      description: The OCI runtime it starts if nothing else is asked for.
      type: str
    cgroup_driver:
      description: How the engine makes control groups.
      type: str
      sample: systemd
    storage_driver:
      description: How the engine stores root file systems.
      type: str
      sample: overlay2
    restore_runtime_registered:
      description: Whether the restore runtime of this collection is registered.
      type: bool
    error:
      description: Why the engine did not answer. Empty if it did.
      type: str
verdict:
  description: The judgement, each entry with C(topic), C(text) and C(remedy).
  returned: always
  type: dict
  contains:
    works:
      description: What works.
      type: list
      elements: dict
    limited:
      description: What is not available, with what is lost.
      type: list
      elements: dict
    fails:
      description: What keeps checkpoint and restore from working at all.
      type: list
      elements: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import installed


def pycriu_state() -> dict[str, Any]:
    """Say whether pycriu's messages can be imported by this interpreter."""
    try:
        import pycriu.rpc_pb2  # noqa: F401
    except Exception as error:  # a protobuf that does not fit raises all kinds of errors
        return {"available": False, "version": None, "error": f"{type(error).__name__}: {error}"}
    try:
        from importlib.metadata import version

        return {"available": True, "version": version("pycriu"), "error": ""}
    except Exception:  # Debian's package has no metadata in some versions
        return {"available": True, "version": None, "error": ""}


def criu_state(run: features.Run, executable: str, kernel: str) -> tuple[dict[str, Any], features.Check | None]:
    """Return the result ``criu`` and the answer of ``criu check``."""
    path = features.locate(executable)
    state: dict[str, Any] = {"path": path, "version": None, "works": False, "check_output": [], "features": {}}
    state["pycriu"] = pycriu_state()
    if path is None:
        return state, None
    try:
        version = features.criu_version(run, path)
    except ValueError as error:
        state["check_output"] = [str(error)]
        return state, features.Check(False, (str(error),))
    state["version"] = features.version_text(version)
    checked = features.check(run, path)
    state["check_output"] = list(features.check(run, path, "--all").messages if checked.ok else checked.messages)
    state["works"] = checked.ok and features.too_old_for_kernel(version, kernel) is None
    if checked.ok:
        state["features"] = features.features(run, path)
    return state, checked


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"criu_executable": {"type": "str", "default": "criu"}},
        supports_check_mode=True,
    )

    def run(argv: list[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(argv, environ_update={"LC_ALL": "C"})
        return code, out, err

    kernel = features.kernel_release()
    config = features.kernel_config()
    criu, checked = criu_state(run, module.params["criu_executable"], kernel)
    engines = installed.engines(run)
    findings = features.verdict(
        criu=criu["path"],
        version=features.parse_version(criu["version"]) if criu["version"] else (),
        kernel=kernel,
        checked=checked,
        has=criu["features"],
        config=config,
        pycriu=None if criu["pycriu"]["available"] else criu["pycriu"]["error"],
    )
    findings += [installed.judge(engine) for engine in engines]

    def listed(severity: str) -> list[dict[str, str]]:
        chosen = [finding for finding in findings if finding.severity == severity]
        return [{"topic": item.topic, "text": item.text, "remedy": item.remedy} for item in chosen]

    module.exit_json(
        changed=False,
        criu=criu,
        kernel={"release": kernel, "config": config},
        cgroup={"version": 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1},
        cpu=features.cpu_features(),
        engines=engines,
        verdict={"works": listed("ok"), "limited": listed("warning"), "fails": listed("error")},
    )


if __name__ == "__main__":
    main()
