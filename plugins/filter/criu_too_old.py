# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule which CRIU works on which kernel, for roles and playbooks."""

from __future__ import annotations

DOCUMENTATION = r"""
name: criu_too_old
short_description: Say why a version of CRIU cannot work on a kernel
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Compares a version of CRIU, also one that is not installed yet, with a kernel.
positional: kernel
options:
  _input:
    description: Version of CRIU, or of a package of it, such as V(4.1.1-1).
    type: str
    required: true
  kernel:
    description: Release of the kernel, such as C(ansible_facts['kernel']).
    type: str
    required: true
seealso:
  - plugin: stillpoint.criu.criu_info
    plugin_type: module
"""

EXAMPLES = r"""
- name: Refuse a package that cannot work here
  ansible.builtin.assert:
    that: "'4.1.1-1' | stillpoint.criu.criu_too_old(ansible_facts['kernel']) == ''"
    fail_msg: "{{ '4.1.1-1' | stillpoint.criu.criu_too_old(ansible_facts['kernel']) }}"
"""

RETURN = r"""
_value:
  description: The reason in one sentence; empty if that version works on that kernel.
  type: str
  sample: >-
    CRIU 4.1.1 is too old for kernel 6.18.4: kernels from 6.16 on need CRIU 4.2 or newer, because sockets of this kernel
    refuse an option that older versions read (dumps with TCP fail).
"""

import re
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.features import too_old_for_kernel


def criu_too_old(criu: str, kernel: str) -> str:
    """Return why that CRIU cannot work on that kernel, or an empty text.

    Raises:
        AnsibleFilterError: one of them has no version number.
    """
    upstream = re.sub(r"^\d+:", "", criu)  # an epoch is not part of CRIU's own version
    try:
        return too_old_for_kernel(upstream, kernel) or ""
    except ValueError as error:
        raise AnsibleFilterError(f"criu_too_old: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {"criu_too_old": criu_too_old}
