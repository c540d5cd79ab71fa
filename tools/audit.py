"""Ask whether what the project pins has known vulnerabilities: ``make audit``.

pip-audit looks each pin up in PyPI's advisories. It lives in an environment of its own, so that what it needs moves
nothing here. Findings are listed and make the command fail. Where the service cannot be asked, for want of a network or
because it knows none of the packages, a warning says so and the command succeeds: an audit that did not happen says
nothing about the project.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-audit"
PIP_AUDIT = "pip-audit==2.10.1"
PATIENCE_S = 60


def installed() -> Path:
    """Path of pip-audit, in an environment that is made where it is missing."""
    program, stamp = FOLDER / "bin" / "pip-audit", FOLDER / PIP_AUDIT
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != str(FOLDER):  # scripts know where they were installed
        print(f"installing {PIP_AUDIT} into {FOLDER.name}")
        install = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", FOLDER],
            [*install, "--timeout", "10", "--retries", "1", PIP_AUDIT],
        ):
            subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=PATIENCE_S)
        stamp.write_text(str(FOLDER), encoding="utf-8")
    return program


def advisories(program: Path, requirements: Path, patience_s: float = PATIENCE_S) -> list[dict]:
    """What pip-audit says of each pin: its ``vulns``, or why it was not audited."""
    command = [program, "--requirement", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--timeout", "10", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=patience_s)
    try:
        return json.loads(done.stdout)["dependencies"]
    except ValueError as error:  # it ends with the same code where it finds something and where it breaks down
        raise subprocess.SubprocessError(last_line(done.stderr)) from error


def report(dependencies: list[dict]) -> int:
    """Print what was found, and return the exit code."""
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    audited = [dependency for dependency in dependencies if "skip_reason" not in dependency]
    if not audited:
        print(f"warning: the pins are not audited: the service knows none of the {len(skipped)} packages")
        return 0
    if skipped:
        print(f"warning: not audited: {', '.join(skipped)}")
    found = 0
    for dependency in audited:
        for flaw in dependency["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no release yet"
            print(f"{dependency['name']} {dependency['version']}: {flaw['id']}, fixed in {fixed}")
            found += 1
    print(f"{len(audited)} packages audited, {found} known vulnerabilities")
    return 1 if found else 0


def main(program: Path | None = None, patience_s: float = PATIENCE_S) -> int:
    """Audit ``requirements.txt`` and return the exit code, 1 if there is a finding."""
    try:
        dependencies = advisories(program or installed(), ROOT / "requirements.txt", patience_s)
    except subprocess.TimeoutExpired as error:
        why = f"no answer within {error.timeout:g} s"
    except subprocess.CalledProcessError as error:
        why = last_line(error.stderr)
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
    else:
        return report(dependencies)
    print(f"warning: the pins are not audited: {why}")
    return 0


def last_line(text: str) -> str:
    """The last thing a program said."""
    return next(reversed(text.strip().splitlines()), "it said nothing")


if __name__ == "__main__":
    sys.exit(main())
