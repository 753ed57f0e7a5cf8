"""What README.md and docs/*.md say is true: their commands parse against the real command lines, their result tables are the
committed ones, their links lead somewhere."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest

from reproduce import __main__ as run_tables
from reproduce.experiments import EXPERIMENTS
from slmrec.pipeline import front_door

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = {path: path.read_text(encoding="utf-8") for path in [README, *sorted((ROOT / "docs").glob("*.md"))]}


def commands(text: str) -> list[str]:
    """The command lines of a page's bash blocks, without their comments; a line that ends in a backslash goes on in the next."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text.replace("\\\n", " "), re.DOTALL | re.MULTILINE)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip() and line[0] != "#"]


def marked(what: str) -> list:
    """(path of the results, text of the page) between the page's markers `<!-- WHAT: PATH -->` and `<!-- end -->`."""
    marks = re.compile(rf"<!-- {what}: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
    return [pytest.param(*found, id=f"{page.name}-{found[0]}") for page, text in PAGES.items() for found in marks.findall(text)]


COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})
LINKS = [(page.name, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)]
OTHERS = {"tensorboard": {"--logdir"}, "pip": {"-r"}}  # commands that are not ours, and their flags here


def help_text(module: str) -> str:
    """What `-h` of an entry point prints, asked in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        importlib.import_module(module).main(["-h"])
    return out.getvalue()


def flags_of(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


def known_flags(words: list[str]) -> set[str]:
    """The flags that the command `words` takes."""
    program, script = words[0], words[1]
    if program == "python":
        module = words[2] if script == "-m" else script.removesuffix(".py")
        module += ".__main__" if module in ("slmrec.data", "reproduce.efficiency") else ""
        return set(re.findall(r"--\w+", help_text(module)))
    return {"--render"} if script == "run_tables.sh" else set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_and_takes_its_flags(command, monkeypatch):
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] in OTHERS:
        assert set(flags_of(words)) <= OTHERS[words[0]], command
        return
    if words[0] == "accelerate":  # up to the script the flags are its own
        script = next(place for place, word in enumerate(words) if word.endswith(".py"))
        assert set(flags_of(words[:script])) <= {"--config_file", "--machine_rank", "--main_process_ip"}
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        words = ["python", *words[script:]]
    assert words[0] in ("python", "bash"), command
    script = words[2].replace(".", "/") if words[1] == "-m" else words[1]
    assert any((ROOT / path).is_file() for path in (script, f"{script}.py", f"{script}/__main__.py")), script
    if script in ("run_pipeline.sh", "run_finetune.sh", "run_distill.sh", "run_openp5.sh"):  # the very check that they begin with
        monkeypatch.setattr(front_door, "require_files", lambda *_: None)
        front_door.main(words[1:])
    elif script == "run_tables.sh" and words[2] in EXPERIMENTS and EXPERIMENTS[words[2]].dataset:
        run_tables.share(words[2], words[3], words[4:])
    else:
        assert set(flags_of(words)) <= known_flags(words)


def test_the_readme_has_the_two_commands_in_its_first_screen_and_is_a_door_not_the_house():
    lines = PAGES[README].splitlines()
    first_screen = "\n".join(lines[:20])
    assert "bash run_pipeline.sh " in first_screen and "bash run_tests.sh " in first_screen
    assert len(COMMANDS) > 10
    assert len(lines) <= 200


@pytest.mark.parametrize("page, link", LINKS)
def test_links_lead_somewhere(page, link):
    beside = (ROOT if page == README.name else ROOT / "docs") / link
    assert link.startswith("https://") or beside.exists()


def test_the_readme_leads_to_every_page():
    linked = {link for page, link in LINKS if page == README.name}
    assert {f"docs/{page.name}" for page in PAGES if page != README} <= linked


@pytest.mark.parametrize("path,table", marked("results"))
def test_result_tables_are_the_committed_ones(path, table):
    assert table.strip() == (ROOT / path).read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("path,table", marked("part of results"))
def test_one_of_several_tables_of_a_file_is_the_committed_one(path, table):
    """From its title to the next."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert table.strip() in [f"**{part}".strip() for part in re.split(r"^\*\*", text, flags=re.MULTILINE)]


def test_there_are_result_tables():
    assert marked("results") and marked("part of results")
