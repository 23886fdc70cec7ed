# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX is given: surveys, job templates, workflows, the rulebook and the execution environment."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import ansiblelint.schemas
import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
SURVEYS = sorted((PLAYBOOKS / "files/awx").glob("*.json"))
COMING = ("verify",)
"""Surveys whose playbook may not be there yet."""
OWN_DEFAULTS = {("prune", "keep_daily"), ("prune", "keep_weekly"), ("prune", "keep_monthly")}
"""Questions whose default differs from the playbook's: it insists on a rule."""
TYPES = {
    "text": str,
    "textarea": str,
    "password": str,
    "multiplechoice": str,
    "multiselect": str,
    "integer": int,
    "float": float,
}


class Yaml(yaml.SafeLoader):
    """Reads texts that Ansible must not template, too."""


Yaml.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
AWX = yaml.load((PLAYBOOKS / "vars/awx.yml").read_text(), Yaml)


def faults(survey):
    """Return what AWX would refuse in a survey, and what it would take but nobody could answer."""
    found = [f"{key} is missing" for key in ("name", "description", "spec") if key not in survey]
    found += [f"{key} is no text" for key in ("name", "description") if not isinstance(survey.get(key, ""), str)]
    if not isinstance(survey.get("spec"), list) or not survey["spec"]:
        return [*found, "there is no question"]
    seen = set()
    for number, question in enumerate(survey["spec"]):
        found += [f"question {number}: {fault}" for fault in question_faults(question)]
        if question.get("variable") in seen:
            found.append(f"question {number}: {question['variable']} is asked twice")
        seen.add(question.get("variable"))
    return found


def question_faults(question):
    for key, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
        if not isinstance(question.get(key), kind):
            yield f"{key} is missing or not of type {kind.__name__}"
            return
    if question["type"] not in TYPES:
        yield f"there is no type {question['type']}"
        return
    if not question["variable"].isidentifier() or not question["question_name"].strip():
        yield "nobody could answer it"
    for key in ("min", "max"):
        limit = question.get(key)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            yield f"{key} is neither a whole number nor null"
            return
    default = question.get("default", "")
    if default != "" and (not isinstance(default, TYPES[question["type"]]) or isinstance(default, bool)):
        yield f"the default is not of type {TYPES[question['type']].__name__}"
        return
    if question["type"] in ("multiplechoice", "multiselect"):
        choices = str(question.get("choices", "")).splitlines()
        defaults = default.splitlines()
        if not choices or not all(map(str.strip, choices)):
            yield "there are no choices"
            return
        if set(defaults) - set(choices):
            yield "the default is not among the choices"
        elif question["type"] == "multiplechoice" and len(defaults) != 1:
            # AWX takes it, but then nothing stands for "no answer".
            yield "the default is not one choice"
    elif default != "" or not question["required"]:
        size = default if isinstance(default, (int, float)) else len(default)
        low, high = question.get("min"), question.get("max")
        if (low is not None and size < low) or (high is not None and size > high):
            yield "the default is not within the limits"
    if isinstance(default, str) and default.startswith("$encrypted$"):
        yield "the default is a word that AWX keeps for itself"


def load(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", SURVEYS, ids=lambda path: path.stem)
def test_survey_is_valid(path):
    assert faults(load(path)) == []


GOOD = {"type": "text", "question_name": "Hosts", "variable": "target", "required": True}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "boolean"},
        {"required": "yes"},
        {"variable": "a b"},
        {"question_name": None},
        {"min": "1"},
        {"max": 1.5},
        {"default": 5},
        {"default": True, "type": "integer"},
        {"default": "abc", "max": 2},
        {"default": "", "required": False, "min": 1},
        {"default": 3, "type": "integer", "max": 2},
        {"type": "multiplechoice"},
        {"type": "multiplechoice", "choices": "a\nb", "default": "c"},
        {"type": "multiplechoice", "choices": "a\nb", "default": "a\nb"},
        {"type": "multiplechoice", "choices": "a\nb"},
        {"default": "$encrypted$"},
    ],
    ids=str,
)
def test_validator_finds_faults(change):
    survey = {"name": "", "description": "", "spec": [GOOD]}
    assert faults(survey) == []
    assert len(faults({**survey, "spec": [{**GOOD, **change}]})) == 1


def test_validator_finds_faults_of_the_whole():
    assert faults({}) == ["name is missing", "description is missing", "spec is missing", "there is no question"]
    assert faults({"name": "", "description": "", "spec": [GOOD, GOOD]}) == ["question 1: target is asked twice"]


def there(names):
    return [name for name in names if name not in COMING or (PLAYBOOKS / f"{name}.yml").exists()]


def module_defaults(text):
    """Return the defaults of the options of all modules of ours that a playbook calls."""
    found = {}
    for name in re.findall(r"stillpoint\.criu\.(container_\w+|criu_info):", text):
        tree = ast.parse((ROOT / f"plugins/modules/{name}.py").read_text())
        documents = [
            node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == "DOCUMENTATION"
        ]
        for option, described in yaml.safe_load(documents[0])["options"].items():
            found[option] = described.get("default")
    return found


def playbook_defaults(text, variables):
    """Return (default, whether an empty answer counts as none) of those variables that a playbook has a default for."""
    modules, found = module_defaults(text), {}
    for name, default, empty in re.findall(r"\b([a-z]\w*) \| default\(((?:[^()]|\([^()]*\))*?)(, true)?\)", text):
        if name not in variables:
            continue
        if "omit" in default or "__" in default:
            option = re.search(rf'(\w+): "{{{{ {name} \| default\(', text)
            value = modules.get(option[1]) if option else None
        else:
            value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(default, default))
        found.setdefault(name, (value, bool(empty)))
    return found


def said(value):
    """Return a default as a survey would say it."""
    if value in (None, [], ""):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", there(path.stem for path in SURVEYS))
def test_survey_fits_its_playbook(name):
    """Every variable is one that the playbook explains and uses, an empty answer counts as none, defaults agree."""
    text = (PLAYBOOKS / f"{name}.yml").read_text()
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    asked = load(PLAYBOOKS / f"files/awx/{name}.json")["spec"]
    used = playbook_defaults(text, {question["variable"] for question in asked})
    for question in asked:
        variable = question["variable"]
        assert re.search(rf"\b{variable}\b", head), f"{variable} is not explained at the top of {name}.yml"
        assert re.search(rf"\b{variable}\b", text.replace(head, "")), f"{name}.yml does not use {variable}"
        if question["required"] and "default" not in question:
            continue
        default, empty = used[variable]
        if question["type"] == "text" and not question["required"]:
            assert empty, f"{name}.yml does not take an empty {variable} for none"
        if (name, variable) not in OWN_DEFAULTS:
            assert said(question["default"]) == said(default), f"{variable}: not the default of {name}.yml"


def test_job_templates():
    """Each has a survey and a playbook, and no survey is left over."""
    surveys = [template["survey"] for template in AWX["awx_job_templates"]]
    assert sorted(surveys) == [path.stem for path in SURVEYS]
    assert all((PLAYBOOKS / f"{name}.yml").exists() for name in there(surveys))


def questions(template):
    (survey,) = (one["survey"] for one in AWX["awx_job_templates"] if one["name"] == template)
    return {question["variable"]: question for question in load(PLAYBOOKS / f"files/awx/{survey}.json")["spec"]}


def test_workflows():
    """Nodes run templates that there are, give only what these ask for, and all are reached from the first one."""
    for workflow in AWX["awx_workflows"]:
        nodes = {node["identifier"]: node for node in workflow["nodes"]}
        assert len(nodes) == len(workflow["nodes"])
        reached, following = set(), [workflow["nodes"][0]["identifier"]]
        while following:
            node = nodes[following.pop()]
            reached.add(node["identifier"])
            following += [one["identifier"] for one in node["related"]["success_nodes"]]
            assert set(node["related"]) == {"success_nodes", "failure_nodes", "always_nodes", "credentials"}
            if node["unified_job_template"]["type"] == "job_template":
                asked = questions(node["unified_job_template"]["name"])
                assert set(node.get("extra_data", {})) <= set(asked)
                if "survey" not in workflow:
                    needed = {name for name, one in asked.items() if one["required"] and "default" not in one}
                    assert needed <= set(node["extra_data"])
        assert reached == set(nodes)


def test_schedules_are_in_utc():
    names = {one["name"] for one in AWX["awx_job_templates"] + AWX["awx_workflows"]}
    for schedule in AWX["awx_schedules"]:
        assert schedule["template"] in names
        assert re.fullmatch(r"DTSTART:\d{8}T\d{6}Z RRULE:FREQ=\w+;INTERVAL=1(;BYDAY=\w+)?", schedule["rrule"])


def test_credential_type():
    """Secrets are secret, every field is handed on, and none of it as a variable of the job."""
    kind = AWX["awx_credential_type"]
    fields = {field["id"]: field for field in kind["inputs"]["fields"]}
    assert set(kind["injectors"]) == {"env"}
    handed_on = {name: re.fullmatch(r"{{ (\w+) }}", text)[1] for name, text in kind["injectors"]["env"].items()}
    assert sorted(handed_on.values()) == sorted(fields)
    assert {name for name, field in fields.items() if field.get("secret")} >= {
        "password",
        "secret_access_key",
        "rest_password",
    }
    looked_up = re.findall(r"lookup\('ansible.builtin.env', '(\w+)'\)", str(AWX["awx_repository_variables"]))
    assert sorted(looked_up) == sorted(handed_on)


def schema(name):
    return load(Path(ansiblelint.schemas.__file__).with_name(f"{name}.json"))


def test_rulebook():
    """It has the form that ansible-rulebook wants, and gives the job template only what this asks for."""
    (path,) = (ROOT / "extensions/eda/rulebooks").iterdir()
    rulebook = yaml.safe_load(path.read_text())
    jsonschema.validate(rulebook, schema("rulebook"))
    head = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    (rules,) = (ruleset["rules"] for ruleset in rulebook)
    for rule in rules:
        job = rule["action"]["run_job_template"]
        asked, given = questions(job["name"]), job["job_args"]["extra_vars"]
        assert (
            {name for name, one in asked.items() if one["required"] and "default" not in one}
            <= set(given)
            <= set(asked)
        )
        assert all(isinstance(value, str) for value in given.values())  # as surveys want them
        assert 'event.alert.status == "firing"' in rule["condition"]
        assert "event.alert.labels.instance" in rule["throttle"]["group_by_attributes"]
    for name in set(re.findall(r"{{ (\w+)(?: \||}})", path.read_text())) - {"event"}:
        assert re.search(rf"^# +{name} ", head, re.M), f"{name} is not explained"


def test_execution_environment_has_this_version():
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    environment = yaml.safe_load((ROOT / "extensions/ee/execution-environment.yml").read_text())
    archive = f"stillpoint-criu-{version}.tar.gz"
    assert environment["dependencies"]["galaxy"]["collections"][0]["name"] == f"archives/{archive}"
    assert environment["additional_build_files"] == [{"src": archive, "dest": "archives"}]
