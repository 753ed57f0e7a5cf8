"""Rules that hold for the tree as a whole: who imports whom, and what no file may contain."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = {path.name for path in (ROOT / "slmrec").iterdir() if (path / "__init__.py").is_file()}
# Which other parts of the library each part may import. Modules directly in slmrec/ are open to all and import no part but for
# those named below; reproduce/ may import all of slmrec/, which never imports it.
MAY_IMPORT = {
    "data": set(),
    "encoders": set(),
    "llm": set(),
    "distillation": {"llm"},
    "evaluation": {"data"},
    "text": {"data", "llm"},
    "serving": set(),
    "export": {"data", "llm"},
    "training": {"data", "encoders", "llm", "distillation", "evaluation", "text"},
    "openp5": {"data", "llm", "training"},
    "pipeline": {"data", "encoders", "llm", "distillation", "evaluation", "openp5", "text", "training"},
}
MODULES_MAY_IMPORT = {  # directly in slmrec/: what is known of items and histories, and opening a model of any part
    "catalogue": {"data"},
    "embeddings": {"data"},
    "recommendation": {"data"},
    "topk": {"data"},
    "open_model": {"encoders", "llm", "openp5"},
}
HEAVY = {"torch", "transformers", "peft", "accelerate"}  # not needed for the paper's tables
CACHES = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"}
SKIPPED = CACHES | {"raw", "processed", "runs", "models", "shared"}
TEXT = {".py", ".sh", ".md", ".toml", ".txt", ".json", ".ipynb", ".yml", ".yaml", ".cfg", ""}


def tree_files(*suffixes):
    """Files of the project with these suffixes; data, runs and environments left out."""
    found = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if path.suffix in suffixes and path.is_file() and not SKIPPED & set(inside) and not inside[0].endswith(".partial"):
            found.append(path)
    return sorted(found)


PYTHON_FILES = tree_files(".py")
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PYTHON_FILES}


def nodes(tree, functions=True, types=False):
    """All nodes but those under `if TYPE_CHECKING:`, unless `types`, and with functions=False those inside of functions."""
    yield tree
    if not types and isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if functions or not isinstance(tree, ast.FunctionDef):
        for child in ast.iter_child_nodes(tree):
            yield from nodes(child, functions, types)


def imports(source, functions=True, types=False):
    """Full names of what a module imports, with functions=False on being imported: `from a.b import c` gives a.b and a.b.c."""
    names = set()
    for node in nodes(ast.parse(source), functions, types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here, so that this test can read them"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_parts(source):
    return {name.split(".")[1] for name in imports(source) if name.startswith("slmrec.")} & PARTS


def test_imports_are_found():
    inner = "def f():\n    from slmrec.llm.prompt import Prompt\n    import slmrec.data\n"
    source = f"import torch.nn\n{inner}from slmrec import evaluation\n"
    assert {"torch.nn", "slmrec.llm.prompt", "slmrec.llm.prompt.Prompt"} <= imports(source)
    assert imported_parts(source) == {"llm", "data", "evaluation"}
    assert imports(source, functions=False) == {"torch.nn", "slmrec", "slmrec.evaluation"}
    for_types = "if typing.TYPE_CHECKING:\n    import torch"
    assert not imports(for_types) and imports(for_types, types=True) == {"torch"}


def test_every_part_has_its_rule():
    assert {"data", "encoders", "llm", "distillation", "evaluation", "training"} <= PARTS <= MAY_IMPORT.keys()


@pytest.mark.parametrize("part", sorted(PARTS))
def test_who_imports_whom(part):
    wrong = {}
    for path in (ROOT / "slmrec" / part).rglob("*.py"):
        extra = imported_parts(path.read_text(encoding="utf-8")) - MAY_IMPORT[part] - {part}
        if extra:
            wrong[path.name] = extra
    assert not wrong


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT / "slmrec").glob("*.py")))
def test_what_modules_directly_in_the_library_import(module):
    assert imported_parts((ROOT / "slmrec" / f"{module}.py").read_text(encoding="utf-8")) <= MODULES_MAY_IMPORT.get(module, set())


def test_the_method_never_imports_what_reproduces_it():
    """Not even for type hints: what the method says of types it can say without."""
    for path in (ROOT / "slmrec").rglob("*.py"):
        names = imports(path.read_text(encoding="utf-8"), types=True)
        assert not any(name.split(".")[0] == "reproduce" for name in names), path


def test_an_installed_library_is_whole():
    """`pip install` takes the packages, folders with __init__.py, and the other files that pyproject.toml names."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["slmrec"]
    for path in (ROOT / "slmrec").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (path.parent / "__init__.py").is_file(), path
            assert path.suffix == ".py" or any(path.match(pattern) for pattern in wanted), path


def all_imports(module, seen):
    """Names that importing a module of this project brings in, directly or through others of its modules."""
    if module in seen or module not in MODULES:
        return set()
    seen.add(module)
    names = imports(MODULES[module].read_text(encoding="utf-8"), functions=False)
    packages = {".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 1)}
    return names.union(*(all_imports(name, seen) for name in names | packages))


def test_imports_are_followed():
    assert "torch" in all_imports("slmrec.evaluation.protocol", set())
    assert "slmrec.packing" in all_imports("slmrec.llm.ellmrec", set())


def test_the_papers_tables_need_no_model_library():
    for module in MODULES:
        if module.startswith("reproduce") and module.split(".")[1:2] not in (["analysis"], ["efficiency"]):  # these open models
            assert not {name.split(".")[0] for name in all_imports(module, set())} & HEAVY, module


def test_nobody_imports_a_script():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert {"finetune", "distill", "evaluate"} <= scripts
    for path in PYTHON_FILES:
        if path.relative_to(ROOT).parts[0] != "tests":
            assert not imports(path.read_text(encoding="utf-8")) & scripts, path


# -- what no file may contain -------------------------------------------------------------------------------------------------

HOME = re.compile(r"(?<![\w.$}~-])/(?:" + "|".join(["home", "root", "Users", "work"]) + r")/\w")


def test_no_path_of_one_machine():
    assert HOME.search('open("/' + 'home/somebody/data")')
    assert not HOME.search("datasets/home/x") and not HOME.search("$DIR/work/x")
    wrong = []
    for path in tree_files(*TEXT):
        text = path.read_text(encoding="utf-8", errors="replace")
        wrong += [f"{path.relative_to(ROOT)}: {found.group()}" for found in HOME.finditer(text)]
    assert not wrong


def unsafe(source):
    """Line numbers of bare excepts and of calls that unpickle without restriction."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            lines.append(node.lineno)
        if isinstance(node, ast.Call):
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            lines += [node.lineno] if unpickles(ast.unparse(node.func), keywords) else []
    return lines


def unpickles(function, keywords):
    if function in ("torch.load", "load") and "weights_only" in keywords:
        return keywords["weights_only"] != "True"
    if function.endswith(("np.load", "numpy.load")):
        return keywords.get("allow_pickle", "False") != "False"
    restricted = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "dill.load", "joblib.load", "pd.read_pickle"}
    return function in restricted


@pytest.mark.parametrize(
    "source, found",
    [
        ("try:\n    pass\nexcept:\n    pass", [3]),
        ("try:\n    pass\nexcept ValueError:\n    pass", []),
        ("pickle.load(stream)", [1]),
        ("torch.load(path)", [1]),
        ("torch.load(path, weights_only=False)", [1]),
        ("torch.load(path, weights_only=True)", []),
        ("np.load(path, allow_pickle=True)", [1]),
        ("np.load(path, allow_pickle=False)", []),
        ("pickle.dump(value, stream)", []),
    ],
)
def test_unsafe_code_is_found(source, found):
    assert unsafe(source) == found


def test_no_bare_except_and_no_unrestricted_unpickling():
    """Tests may unpickle what they have just written."""
    library = [path for path in PYTHON_FILES if path.relative_to(ROOT).parts[0] != "tests"]
    wrong = {path: unsafe(path.read_text(encoding="utf-8")) for path in library}
    assert not {path: lines for path, lines in wrong.items() if lines}


def test_pickle_is_imported_only_where_a_released_file_is_read():
    importers = {str(path.relative_to(ROOT)) for path in PYTHON_FILES if "pickle" in imports(path.read_text(encoding="utf-8"))}
    assert {path for path in importers if not path.startswith("tests")} <= {"slmrec/released_pickle.py"}
