"""Starts one of the two kernels of an examination: that of the student's notebook, or that of the tests.

Usage: ``python grading_kernel.py student|judge SOCKET OPTIONS -f CONNECTION_FILE``, with a socket that was inherited
and options as JSON. Cells find their end of the line in the module ``_grading``.
"""

import functools
import importlib
import importlib.util
import inspect
import json
import os
import socket
import sys
import sysconfig
import types
from pathlib import Path

import confinement
import remote

__all__ = ["main", "own_work"]

TOOLS = Path(__file__).resolve().parent

# What programs read on any system; a clone, a home and other people's work are elsewhere.
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/run/systemd/resolve")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "dri", "kfd", "nvidia*")


def readable():
    """What a notebook needs: Python, what is installed, and the package; not the folder in which that lies."""
    spec = importlib.util.find_spec("scorebook")
    package = list(spec.submodule_search_locations) if spec else []
    roots = {str(Path(place).parent) for place in package}
    installed = [
        path for path in sys.path if path and str(Path(path).resolve()) not in {*roots, str(TOOLS), str(Path.cwd())}
    ]
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()]
    return [*SYSTEM, *prefixes, *installed, *package]


class own_work:
    """Functions of the package that students are to write: they raise where a student's own code calls them.

    The package itself may call them. Only what is asked for at the time is refused.

    Args:
        names: dotted names, such as ``scorebook.langevin.langevin`` or ``scorebook.sde.VPSDE.alpha``.
    """

    def __init__(self, names):
        self.asked = frozenset()
        for name in names:
            parent, attribute = _parent_of(name)
            original = getattr(parent, attribute)
            refusing = self._refusing(name, original)
            setattr(parent, attribute, refusing)
            for module in [m for key, m in sys.modules.items() if key.split(".")[0] == "scorebook"]:
                if vars(module).get(attribute) is original:
                    setattr(module, attribute, refusing)

    def _refusing(self, name, original):
        def refusing(*args, **kwargs):
            if name in self.asked and _student_asks(sys._getframe(1)):
                short = name.removeprefix("scorebook.")
                raise RuntimeError(f"here your own work is asked for, and {short} is the book's")
            return original(*args, **kwargs)

        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(refusing, attribute, getattr(original, attribute))
        refusing.__signature__ = inspect.signature(original)
        return refusing


def _parent_of(name):
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            parent = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[count:-1], parent), parts[-1]
    raise ValueError(f"{name} is nowhere in the package")


def _student_asks(frame):
    """Whether the innermost frame that belongs to the package or to a notebook belongs to a notebook."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] == "scorebook":
            return False
        if name == "__main__":
            return True
        frame = frame.f_back
    return True


def _student(stream, options):
    refused = own_work(options["own_work"])
    side = remote.Student(stream, {})
    confined = confinement.confine(
        readable(), [options["folder"], *(found for name in DEVICES for found in Path("/dev").glob(name))]
    )

    def serve(names):
        side.namespace = vars(sys.modules["__main__"])
        refused.asked = frozenset(names)
        try:
            side.serve()
        finally:
            refused.asked = frozenset()

    return {"serve": serve, "confined": confined}


def _judge(stream, options):
    side = remote.Judge(stream, None)

    def bind(names, pid):
        side.pid = pid
        side.bind(names, vars(sys.modules["__main__"]))

    return {"bind": bind, "rest": side.rest}


def main(role, socket_number, options, *arguments):
    """Runs the kernel until it is stopped."""
    os.set_inheritable(int(socket_number), False)
    stream = socket.socket(fileno=int(socket_number))
    module = types.ModuleType("_grading")
    vars(module).update((_student if role == "student" else _judge)(stream, json.loads(options)))
    for name in ("remote", "remote_graph", "remote_messages", "confinement"):
        del sys.modules[name]
    sys.modules["_grading"] = module
    sys.path[0] = ""

    from ipykernel import kernelapp

    kernelapp.launch_new_instance(list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
