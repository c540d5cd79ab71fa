"""The folder of executed notebooks is named after what decides their outputs, and after nothing else."""

import os
import platform
import shutil
import sys
from types import SimpleNamespace

import execution_cache
import nbformat
import pytest
import run_record
from execution_cache import cache_path, environment, installed, package_files, recorded, store
from test_colab import CHAPTERS, DISTRIBUTIONS, MODULES, code_of, imports


@pytest.fixture
def clone(root, tmp_path):
    """The package with its metadata, in a folder of its own."""
    folder = tmp_path / "a clone"
    junk = shutil.ignore_patterns("__pycache__", ".*", "*~")
    shutil.copytree(root / "scorebook", folder / "scorebook", ignore=junk)
    shutil.copy(root / "pyproject.toml", folder)
    return folder


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution: what pip leaves for others to see of it."""

    def pip(name, version, *requirements):
        place = tmp_path / f"{name}-{version}"
        metadata = place / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        needs = "".join(f"Requires-Dist: {each}\n" for each in requirements)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}", encoding="utf-8")
        monkeypatch.syspath_prepend(place)

    return pip


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


CHANGES = {
    "a module": lambda root: write(root / "scorebook" / "langevin.py", b"x = 1\n"),
    "a new module": lambda root: write(root / "scorebook" / "lab" / "new.py", b""),
    "a package that hides a module": lambda root: write(root / "scorebook" / "langevin" / "__init__.py", b""),
    "a compiled module": lambda root: write(root / "scorebook" / "sde.abi3.so", b"\0"),
    "a module less": lambda root: (root / "scorebook" / "sde.py").unlink(),
    "a module of another name": lambda root: (root / "scorebook" / "sde.py").rename(root / "scorebook" / "ode.py"),
    "the style": lambda root: write(root / "scorebook" / "lab" / "scorebook.mplstyle", b"axes.grid: True\n"),
    "a card": lambda root: write(root / "scorebook" / "lab" / "weights" / "digits.json", b"{}"),
    "weights": lambda root: flip(root / "scorebook" / "lab" / "weights" / "digits.safetensors"),
}


def flip(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_package_opens_a_new_folder(clone, change):
    before = cache_path("cpu", clone)
    change(clone)
    assert cache_path("cpu", clone) != before


JUNK = (
    ".DS_Store",
    "langevin.py~",
    "#langevin.py#",
    ".langevin.py.swp",
    "._langevin.py",
    "langevin (copy).py",
    "langevin.py.orig",
    ".ipynb_checkpoints/langevin-checkpoint.py",
    "__pycache__/langevin.cpython-311.pyc",
    "lab/__pycache__/guard.cpython-313.opt-1.pyc",
    "lab/weights/.DS_Store",
    "lab/weights/._digits.json",
    "lab/weights/digits.json~",
    "notes.txt",
    "lab/Thumbs.db",
)


@pytest.mark.parametrize("name", JUNK)
def test_what_nobody_can_import_leaves_the_folder_as_it_is(clone, name):
    before = cache_path("cpu", clone)
    write(clone / "scorebook" / name, b"left behind\n")
    assert cache_path("cpu", clone) == before


def test_line_ends_and_dates_of_files_leave_the_folder_as_it_is(clone):
    before = cache_path("cpu", clone)
    texts = [path for path in package_files(clone) if b"\0" not in path.read_bytes()]
    for path in texts:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        os.utime(path, (0, 0))
    assert len(texts) > 20
    assert cache_path("cpu", clone) == before


def test_line_ends_within_weights_count(clone):
    path = clone / "scorebook" / "lab" / "weights" / "digits.safetensors"
    path.write_bytes(path.read_bytes() + b"\n")
    before = cache_path("cpu", clone)
    path.write_bytes(path.read_bytes()[:-1] + b"\r\n")
    assert cache_path("cpu", clone) != before


def test_two_clones_in_the_same_state_have_folders_of_the_same_name(root, clone):
    assert cache_path("cpu", clone).name == cache_path("cpu", root).name


@pytest.mark.parametrize("change", ["device", "python", "machine", "cores"])
def test_another_device_python_or_machine_has_a_folder_of_its_own(clone, monkeypatch, change):
    before, device = cache_path("cpu", clone), "cuda" if change == "device" else "cpu"
    if change == "python":
        monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    if change == "machine":
        monkeypatch.setattr(platform, "machine", lambda: "abacus")
    if change == "cores":
        monkeypatch.setattr("os.cpu_count", lambda: 3 * 2**9)
    assert cache_path(device, clone) != before


@pytest.mark.parametrize("name", ["matplotlib", "torch", "scipy", "pillow", "ipykernel", "matplotlib_inline"])
def test_installing_another_version_opens_a_new_folder(clone, install, name):
    before = cache_path("cpu", clone)
    install(name, "3.10.0")
    assert cache_path("cpu", clone) != before
    assert environment("cpu", clone)["installed"][name.replace("_", "-")] == "3.10.0"


def test_installing_what_no_notebook_needs_leaves_the_folder_as_it_is(clone, install):
    before = cache_path("cpu", clone)
    install("ruff", "99.0")
    install("unheard_of", "1.0")
    assert cache_path("cpu", clone) == before


def test_requirements_are_followed_at_any_remove_through_extras_and_markers_and_in_circles(install):
    install("top_most", "1", "Middle.Part[extra]>=0", "absent", 'never; python_version < "3"', 'gated; extra == "off"')
    install("middle_part", "2", 'far; extra == "extra"', 'gated; extra == "other"', "top-most")
    install("far", "3")
    install("gated", "4")
    install("never", "5")
    assert installed(["top-most"]) == {"top-most": "1", "middle-part": "2", "far": "3"}
    assert installed(["middle-part", "middle-part[other]"]).keys() == {"top-most", "middle-part", "far", "gated"}


def test_every_distribution_that_a_notebook_imports_is_recorded(root):
    names = set().union(*(imports(code_of(path)) for path in CHAPTERS))
    names |= set().union(*(imports(path.read_text(encoding="utf-8")) for path in MODULES))
    names -= sys.stdlib_module_names | {"scorebook"}
    have = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in names} - {"torchvision"}
    assert have <= environment("cpu")["installed"].keys()
    assert {"torch", "numpy", "matplotlib"} <= have


@pytest.fixture
def source():
    """A notebook as it stands in its file."""
    cell = nbformat.v4.new_code_cell("1 + 1", id="sum")
    return nbformat.v4.new_notebook(cells=[cell])


def keep(source, clone, began):
    executed = nbformat.from_dict(source)
    executed.cells[0].outputs = [nbformat.v4.new_output("stream", text="2")]
    store(executed, source, clone / "sum.ipynb", seconds=1.5, began=began, root=clone)


def test_the_folder_says_what_the_notebooks_in_it_ran_on(clone, source, install):
    install("matplotlib", "3.10.0")
    began = environment("cpu", clone)
    keep(source, clone, began)
    folder = cache_path("cpu", clone)
    install("matplotlib", "3.11.99")
    assert recorded(folder) == began
    assert recorded(folder)["installed"]["matplotlib"] == "3.10.0"
    assert not cache_path("cpu", clone).exists()


@pytest.mark.parametrize("change", [CHANGES["a module"], None], ids=["package", "environment"])
def test_what_ran_while_things_changed_is_not_kept(clone, source, install, change):
    began = environment("cpu", clone)
    if change:
        change(clone)
    else:
        install("matplotlib", "3.10.0")
    keep(source, clone, began)
    assert not (clone / "_build").exists()


@pytest.fixture
def app(clone, monkeypatch):
    """A Sphinx that builds the book of the clone."""
    monkeypatch.setattr(execution_cache, "ROOT", clone)
    monkeypatch.setattr(execution_cache.cache_path, "__defaults__", (clone,))
    monkeypatch.setattr(execution_cache.environment, "__defaults__", (clone,))
    monkeypatch.setenv("SCOREBOOK_DEVICE", "cpu")
    app = SimpleNamespace(config=SimpleNamespace())
    execution_cache.use_cache(app, app.config)
    return app


def test_the_build_takes_the_folder_of_the_test_run(app, clone, source):
    keep(source, clone, environment("cpu", clone))
    assert app.config.nb_execution_cache_path == str(cache_path("cpu", clone))


@pytest.mark.parametrize("changed", [False, True])
def test_a_build_during_which_the_package_changed_keeps_nothing_and_says_so(app, clone, changed, monkeypatch):
    if changed:
        CHANGES["a module"](clone)
    said = []
    monkeypatch.setattr(execution_cache, "logger", SimpleNamespace(warning=said.append))
    execution_cache.forget_a_mixture(app, None)
    assert os.path.exists(app.config.nb_execution_cache_path) != changed
    assert bool(said) == changed


def test_old_folders_go_and_what_is_none_of_ours_stays(app, clone):
    caches = clone / "_build" / ".jupyter_cache"
    for i in range(6):
        (caches / f"{i:016x}").mkdir()
        os.utime(caches / f"{i:016x}", (i, i))
    write(caches / ".DS_Store", b"")
    write(caches / "notes" / "mine.txt", b"mine")
    os.utime(caches / "notes", (0, 0))
    execution_cache.use_cache(app, app.config)
    left = {path.name for path in caches.iterdir()}
    assert left == {".DS_Store", "notes", cache_path("cpu", clone).name, *(f"{i:016x}" for i in (3, 4, 5))}


def test_the_status_page_lists_what_the_notebooks_ran_on(app, clone, install):
    install("matplotlib", "3.99.0")
    (table,) = run_record.this_build(app, "status")
    rows = dict(row.astext().split("\n\n") for row in list(table.findall(run_record.nodes.row))[1:])
    executed = recorded(app.config.nb_execution_cache_path)
    assert rows["matplotlib"] == executed["installed"]["matplotlib"] != "3.99.0"
    assert (rows["Device"], rows["Python"]) == ("cpu", platform.python_version())
    assert rows["Processor"] == executed["processor"]
    assert set(rows) >= {"torch", "numpy", "scipy", "scikit-learn", "ipywidgets", "jupyter-book", "Sphinx", "scorebook"}
