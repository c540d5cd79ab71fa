"""An audit lists what it finds and fails; where nobody can be asked it warns and passes. A stand-in plays pip-audit."""

import json
import shlex
import sys

import audit
import pytest

FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["1.2", "2.0"], "aliases": ["CVE-2026-1"], "description": "bad"}
GOOD = {"name": "numpy", "version": "2.4.6", "vulns": []}
BAD = {"name": "pillow", "version": "13.0.0", "vulns": [FLAW, FLAW | {"id": "PYSEC-2026-2", "fix_versions": []}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}


@pytest.fixture
def stand_in(tmp_path):
    """Makes a program that does what the lines of Python say."""

    def make(*lines):
        program = tmp_path / "pip-audit"
        # The line after #! may hold no spaces: the shell starts Python, to which its own line is a string.
        start = ["#!/bin/sh", f"'''exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"", "' '''"]
        program.write_text("\n".join([*start, "import sys, time", *lines]), encoding="utf-8")
        program.chmod(0o755)
        return program

    return make


def answer(*dependencies, code=0):
    return f"print({json.dumps({'dependencies': dependencies, 'fixes': []})!r}); sys.exit({code})"


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ([answer(GOOD)], 0, ["1 packages audited, 0 known vulnerabilities"]),
        (
            [answer(GOOD, BAD, UNKNOWN, code=1)],
            1,
            [
                "warning: not audited: torch",
                "pillow 13.0.0: PYSEC-2026-1, fixed in 1.2, 2.0",
                "pillow 13.0.0: PYSEC-2026-2, fixed in no release yet",
                "2 packages audited, 2 known vulnerabilities",
            ],
        ),
        (
            [answer(UNKNOWN, UNKNOWN)],
            0,
            ["warning: the pins are not audited: the service knows none of the 2 packages"],
        ),
        (
            ["sys.exit('Traceback\\nConnectionError: no route to host')"],
            0,
            ["warning: the pins are not audited: ConnectionError: no route to host"],
        ),
        (["sys.exit(1)"], 0, ["warning: the pins are not audited: it said nothing"]),
        (["time.sleep(30)"], 0, ["warning: the pins are not audited: no answer within 2 s"]),
    ],
    ids=["clean", "findings", "unknown", "no network", "silent", "slow"],
)
def test_findings_fail_and_an_audit_that_did_not_happen_warns(stand_in, capsys, lines, code, said):
    assert audit.main(stand_in(*lines), patience_s=2 if "sleep" in lines[0] else 60) == code
    assert capsys.readouterr().out.splitlines() == said


def test_a_program_that_is_not_there_is_a_warning(tmp_path, capsys):
    assert audit.main(tmp_path / "pip-audit") == 0
    assert "warning: the pins are not audited: " in capsys.readouterr().out


def test_an_environment_that_cannot_be_made_is_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audit, "FOLDER", tmp_path / "audit")
    monkeypatch.setattr(audit, "PIP_AUDIT", "pip-audit @ file:///nowhere/pip_audit.whl")
    monkeypatch.setattr(audit, "PATIENCE_S", 3600)  # however busy the machine is on which it is tried
    assert audit.main() == 0
    assert "warning: the pins are not audited: ERROR" in capsys.readouterr().out


def test_each_pin_is_asked_about(stand_in, root):
    """What is handed over is the list of the project, and no package of this environment."""
    seen = stand_in(
        answer(GOOD | {"vulns": []}).replace("print", "open(sys.argv[0] + '.said', 'w').write(str(sys.argv)); print")
    )
    assert audit.main(seen) == 0
    arguments = seen.with_name("pip-audit.said").read_text(encoding="utf-8")
    assert f"'--requirement', '{root / 'requirements.txt'}', '--no-deps', '--disable-pip'" in arguments


def test_continuous_integration_checks_the_environment_and_audits(root):
    assert "pip check" in (root / "Makefile").read_text(encoding="utf-8")
    assert "make audit" in (root / ".ci" / "run").read_text(encoding="utf-8")
