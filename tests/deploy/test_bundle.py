"""The function's bundle: its content is right, the same at each build, and runs."""

from __future__ import annotations

import json
import marshal
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path

import boto3
import pytest

from asyncsync.cli import operations
from asyncsync.lab.servers import dynamodb_process, redis_process
from asyncsync.tools.errors import CommandFailed, CommandRefused
from scripts import bundle
from tests.support.project.package import HOT, imports_of, name_of
from tests.support.project.package import modules as package_modules
from tests.support.pythons import skip_without_python
from tests.support.servers import ONE_SERVER

ROOT = Path(__file__).parents[2]
HERE = {"aarch64": "arm64", "x86_64": "x86_64"}[platform.machine()]
ELF_MACHINES = {"arm64": 0xB7, "x86_64": 0x3E}
PYC_UNCHECKED = 0b01  # PEP 552: by hash, and not to be compared with the source
EXTENSIONS = {"hiredis", "msgspec", "orjson"}

lambdas_python = pytest.mark.skipif(
    sys.version_info[:2] != bundle.LAMBDA_PYTHON, reason="Lambda's bytecode is 3.13's to make"
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for this machine and this Python."""
    folder = tmp_path_factory.mktemp("bundle") / "here"
    bundle.build(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


SCRIPTS = {f"asyncsync/{name}.lua" for name in ("fence", "write", "hash", "document")}


# --- what is in it ----------------------------------------------------------------------------


def test_it_holds_the_hot_path_and_three_dependencies_and_nothing_else(here: Path) -> None:
    names = set(contents(here))
    ours = {name for name in names if name.startswith("asyncsync/") and "__pycache__" not in name}
    tops = {name.split("/")[0] for name in names}

    assert ours == {f"asyncsync/{name}.py" for name in (*HOT, "__init__")} | SCRIPTS
    assert {top for top in tops if not top.endswith(".dist-info")} == EXTENSIONS | {"asyncsync"}
    assert {top.split("-")[0] for top in tops if top.endswith(".dist-info")} == EXTENSIONS
    assert not [n for n in names if re.search(r"/tests?/|\.pyi$|/RECORD$|/INSTALLER$", n)]


def test_each_dependencys_licence_comes_along(here: Path) -> None:
    for name in EXTENSIONS:
        assert list(here.glob(f"{name}-*.dist-info/licenses/LICENSE*"))


def test_every_module_has_bytecode_that_is_taken_without_a_look_at_its_source(here: Path) -> None:
    modules = list(here.rglob("*.py"))

    assert len(modules) > len(HOT)
    for module in modules:
        (compiled,) = module.parent.glob(f"__pycache__/{module.stem}.*.pyc")
        content = compiled.read_bytes()
        code = marshal.loads(content[16:])
        assert int.from_bytes(content[4:8], "little") == PYC_UNCHECKED
        assert code.co_filename == f"/var/task/{module.relative_to(here)}"


def test_anyone_may_read_it(here: Path) -> None:
    for path in here.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_what_it_holds_is_what_the_package_depends_on_less_redis_py() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    dependencies = declared["project"]["dependencies"]
    pins = re.findall(r"^([\w-]+)==", (ROOT / "requirements/lambda.txt").read_text(), re.M)

    in_bundle = [each for each in dependencies if not each.startswith("redis>")]
    assert in_bundle == declared["dependency-groups"]["lambda"]
    assert set(pins) == EXTENSIONS == {each.split(">")[0] for each in in_bundle}


# --- it runs ----------------------------------------------------------------------------------


def test_the_handler_imports_from_it_in_an_interpreter_with_nothing_else(here: Path) -> None:
    before = contents(here)
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from asyncsync.handler import lambda_handler as h;"
        "print(json.dumps([h({'Records': []}, None), sorted(sys.modules),"
        " [m.__file__ for m in sys.modules.values() if 'asyncsync' in m.__name__]]))"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(here)],
        env={"ASYNCSYNC_REDIS_URL": "redis://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    answer, loaded, files = json.loads(ended.stdout.splitlines()[-1])
    assert answer == {"batchItemFailures": []}
    assert set(loaded) >= EXTENSIONS
    assert all(file.startswith(str(here)) for file in files)
    assert contents(here) == before  # nothing was left to compile


# --- the same each time -----------------------------------------------------------------------


def test_two_builds_are_one_zip(here: Path, tmp_path: Path) -> None:
    bundle.build(tmp_path / "again")

    digests = {
        bundle.pack(folder, tmp_path / f"{number}.zip")
        for number, folder in enumerate((here, tmp_path / "again"))
    }

    assert len(digests) == 1
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_a_zip_is_sorted_without_times_and_holds_what_the_folder_holds(
    here: Path, tmp_path: Path
) -> None:
    digest = bundle.pack(here, tmp_path / "a.zip")

    assert digest == sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        members = archive.infolist()
        assert {m.filename: archive.read(m) for m in members} == contents(here)
    assert [Path(m.filename) for m in members] == sorted(Path(m.filename) for m in members)
    assert {m.date_time for m in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {m.external_attr >> 16 for m in members} == {0o100644}


def test_a_zip_may_have_so_many_bytes_and_not_one_more(here: Path, tmp_path: Path) -> None:
    bundle.pack(here, tmp_path / "a.zip")
    size_bytes = (tmp_path / "a.zip").stat().st_size

    bundle.pack(here, tmp_path / "b.zip", replace(bundle.MIRROR, archive_bytes_max=size_bytes))
    less = replace(bundle.MIRROR, archive_bytes_max=size_bytes - 1)
    with pytest.raises(CommandFailed, match="are allowed"):
        bundle.pack(here, tmp_path / "c.zip", less)
    assert not (tmp_path / "c.zip").exists()


# --- for Lambda -------------------------------------------------------------------------------


def test_make_package_makes_a_zip_for_each_architecture_and_names_its_sha_256(
    package: tuple[Path, list[str]],
) -> None:
    into, said = package

    for kind, architecture in product(bundle.KINDS, bundle.PLATFORMS):
        archive = into / f"asyncsync-{kind.name}-{architecture}.zip"
        digest = sha256(archive.read_bytes()).hexdigest()
        noted = archive.with_suffix(".zip.sha256").read_text()
        assert noted == f"{digest}  {archive.name}\n"
        assert any(str(archive) in line and line.endswith(digest) for line in said)
        assert archive.stat().st_size <= kind.archive_bytes_max


@pytest.mark.parametrize("kind", bundle.KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("architecture", bundle.PLATFORMS)
def test_each_architecture_gets_its_own_machine_code_and_all_else_alike(
    package: tuple[Path, list[str]], architecture: str, kind: bundle.Kind
) -> None:
    mine, other = (
        contents(package[0] / f"{kind.name}-{each}")
        for each in (architecture, *({*bundle.PLATFORMS} - {architecture}))
    )
    extensions = {name: content for name, content in mine.items() if name.endswith(".so")}

    assert {name.split("/")[0] for name in extensions} >= EXTENSIONS
    for content in extensions.values():
        assert content[:4] == b"\x7fELF"
        assert int.from_bytes(content[18:20], "little") == ELF_MACHINES[architecture]
    for name in mine.keys() - extensions.keys():
        assert ".dist-info/" in name or mine[name] == other[name], name


@lambdas_python
def test_the_bundle_for_this_machine_is_the_one_that_lambda_gets(
    package: tuple[Path, list[str]], here: Path
) -> None:
    lambdas, ours = contents(package[0] / f"lambda-{HERE}"), contents(here)
    code = [name for name in lambdas if name.endswith((".py", ".pyc", ".lua"))]

    assert lambdas.keys() == ours.keys()
    assert [name for name in code if lambdas[name] != ours[name]] == []


@pytest.mark.parametrize(
    ("shim", "state"),
    [("", "python3.99 is not on PATH"), ("exit 1", "does not run"), ("echo 3 13", "does not run")],
    ids=["none", "that does not run", "of another version"],
)
def test_without_lambdas_python_nothing_is_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shim: str,
    state: str,
) -> None:
    if shim:
        (tmp_path / "python3.99").write_text(f"#!/bin/sh\n{shim}\n")
        (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(bundle, "LAMBDA_PYTHON", (3, 99))

    assert bundle.main(["--into", str(tmp_path / "dist")]) == 2
    said = capsys.readouterr().err
    assert state in said
    assert "bytecode for the function's Python 3.99. Install it" in said
    assert not list(tmp_path.rglob("*.py"))


@pytest.mark.parametrize("kind", bundle.KINDS, ids=lambda kind: kind.name)
def test_a_bundles_pins_are_the_same_on_every_python(kind: bundle.Kind) -> None:
    """pip reads a marker with the Python that runs it, not with the one that it installs for."""
    markers = re.findall(r"; (.*?) \\$", kind.requirements.read_text(), re.MULTILINE)
    pythons = [(3, minor) for minor in range(11, max(bundle.RUNTIMES)[1] + 1)]

    for marker in markers:
        bound = re.fullmatch(r"python_full_version < '3\.(\d+)'", marker)
        assert bound is not None, marker
        assert int(bound[1]) > max(pythons)[1]


@pytest.mark.parametrize("runtime", bundle.RUNTIMES[1:], ids=bundle.dotted)
def test_another_python_of_lambdas_gets_its_own_bundle_the_same_each_time(
    tmp_path: Path, runtime: bundle.Version
) -> None:
    skip_without_python(runtime)
    for name in ("once", "again"):
        bundle.build(tmp_path / name, HERE, python=runtime)
    once, again = contents(tmp_path / "once"), contents(tmp_path / "again")

    assert once == again
    tag = "".join(map(str, runtime))
    compiled = [name for name in once if name.endswith(".pyc")]
    assert len(compiled) > len(HOT)
    assert {name.rsplit(".", 2)[1] for name in compiled} == {f"cpython-{tag}"}
    extensions = [name for name in once if name.endswith(".so")]
    assert {name.split("/")[0] for name in extensions} == EXTENSIONS
    assert all(f".cpython-{tag}-" in name for name in extensions)


def test_the_template_runs_the_python_whose_bytecode_it_is() -> None:
    text = (ROOT / "template.yaml").read_text()

    (default,) = re.findall(r"^  Runtime:\n    Type: String\n    Default: (\S+)$", text, re.M)
    assert default == f"python{'.'.join(map(str, bundle.LAMBDA_PYTHON))}"


# --- the operations function's ----------------------------------------------------------------


@pytest.fixture(scope="module")
def tools_here(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The operations function's bundle for this machine and this Python."""
    if sys.version_info[:2] == bundle.LAMBDA_PYTHON:
        into, _ = request.getfixturevalue("package")
        return Path(into) / f"operations-{HERE}"
    folder = tmp_path_factory.mktemp("bundle") / "operations"
    bundle.build(folder, kind=bundle.OPERATIONS)
    return folder


def test_the_operations_bundle_holds_the_tools_and_neither_lab_nor_other_services(
    tools_here: Path,
) -> None:
    names = set(contents(tools_here))
    ours = {name for name in names if name.startswith("asyncsync/") and "__pycache__" not in name}
    tools = {
        str(path.relative_to(ROOT))
        for folder in bundle.OPERATIONS.folders
        for path in (ROOT / "asyncsync" / folder).iterdir()
        if path.is_file()
    }
    services = {path.name for path in (tools_here / "botocore/data").iterdir() if path.is_dir()}

    assert ours == {
        *(f"asyncsync/{name}.py" for name in (*HOT, "__init__")),
        *SCRIPTS,
        *tools,
    }
    assert services == set(bundle.SERVICES)


def test_every_module_that_the_operations_function_can_come_to_import_is_in_it() -> None:
    """Those that a command imports when it runs, too; the function refuses run."""
    modules = {name_of(path): imports_of(path) for path in package_modules()}
    folders = {f"asyncsync.{folder.replace('/', '.')}" for folder in bundle.OPERATIONS.folders}
    reached, left = set[str](), ["asyncsync.cli.operations"]
    while left:
        name = left.pop()
        if name in modules and name not in reached and not name.startswith("asyncsync.tools.run."):
            reached.add(name)
            left += modules[name]

    assert "asyncsync.tools.check.aws" in reached
    lacking = {name for name in reached if name.rpartition(".")[0] not in {"asyncsync", *folders}}
    assert lacking - folders == set()


def test_every_service_that_the_tools_open_is_in_it() -> None:
    folders = [ROOT / "asyncsync" / name for name in ("aws", "cli", "tools")]
    text = "".join(path.read_text() for each in folders for path in each.rglob("*.py"))

    of_function = {"secretsmanager", "ssm"}  # for --function, which is refused there
    assert set(re.findall(r'open_?\("(\w+)"\)', text)) - of_function == set(bundle.SERVICES)


def test_what_it_holds_is_the_tools_extra_and_what_the_mirror_has() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = declared["project"]["optional-dependencies"]["tools"]
    group = declared["dependency-groups"]

    assert set(group["operations"]) == {*group["lambda"], *tools}
    assert not list((ROOT / "asyncsync").rglob("rich"))


def test_the_operations_function_answers_from_it_in_an_interpreter_with_nothing_else(
    tools_here: Path,
) -> None:
    before = contents(tools_here)
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from asyncsync.cli.operations import lambda_handler as h;"
        "print(json.dumps([h({'args': ['run']}, None), h({'args': ['audit']}, None)]));"
        "import asyncsync.tools.audit.command, asyncsync.tools.retire.command,"
        " asyncsync.tools.backfill.command, asyncsync.tools.backfill.export,"
        " asyncsync.tools.backfill.preconditions, asyncsync.tools.redrive.command;"
        "ours = [m.__file__ for m in sys.modules.values() if 'asyncsync' in m.__name__];"
        "print(json.dumps(ours))"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tools_here)],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    answers, files = (json.loads(line) for line in ended.stdout.splitlines()[-2:])
    assert [each["exit_code"] for each in answers] == [2, 2]
    assert "give --table or --function" in answers[1]["said"][0]
    assert all(file.startswith(str(tools_here)) for file in files)
    assert contents(tools_here) == before  # nothing was left to compile


@pytest.fixture
def players() -> Iterator[str]:
    """A DynamoDB with a table of 30 players and a bucket; gives its address."""
    sign_in = {"aws_access_key_id": "a", "aws_secret_access_key": "a", "region_name": "us-east-1"}
    with dynamodb_process() as url:
        table = boto3.client("dynamodb", endpoint_url=url, **sign_in)
        table.create_table(
            TableName="Players",
            KeySchema=[{"AttributeName": "Number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "Number", "AttributeType": "N"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        for number in range(30):
            table.put_item(TableName="Players", Item={"Number": {"N": str(number)}})
        bucket = boto3.client("s3", endpoint_url=url, **sign_in)
        bucket.create_bucket(Bucket="operated")
        table.close()
        bucket.close()
        yield url


@pytest.mark.parametrize("binary", ONE_SERVER)
def test_it_works_on_a_table_and_a_copy_with_what_it_holds_and_nothing_else(
    tools_here: Path, players: str, binary: str
) -> None:
    """A client of every service is made; Lambda is asked for a mapping that is not there."""
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from asyncsync.cli.operations import lambda_handler as h;"
        "answers = [h({'args': [*each, '--endpoint-url', sys.argv[2]]}) for each in "
        "(['backfill'], ['backfill', '--skip-mapping-check'],"
        " ['audit', '--recheck-after', '0.01'], ['redrive'])];"
        "print(json.dumps(answers))"
    )
    with redis_process(binary) as server:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, str(tools_here), players],
            env={
                operations.TABLE: "Players",
                operations.PLACE: "s3://operated/aws/lambda/",
                operations.STATE: "s3://operated/operations",
                "ASYNCSYNC_REDIS_URL": server.url,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    assert ended.returncode == 0, ended.stderr
    unfollowed, *done = json.loads(ended.stdout.splitlines()[-1])
    assert "no event source mapping reads this table's stream" in unfollowed["said"][-1]
    assert [each["exit_code"] for each in done] == [0, 0, 0]
    assert "30 of 30 keys are the same in table and copy" in done[1]["said"]


# --- refused ----------------------------------------------------------------------------------


def test_a_wheel_with_another_hash_is_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = (ROOT / "requirements" / "lambda.txt").read_text()
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lambda.txt").write_text(
        re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", pins)
    )
    monkeypatch.setattr(bundle, "ROOT", tmp_path)

    with pytest.raises(CommandFailed, match="pip failed"):
        bundle.build(tmp_path / "bundle")


def test_what_is_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")

    with pytest.raises(CommandRefused, match="is not empty"):
        bundle.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_installed_package_says_where_bundles_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "ROOT", tmp_path)

    with pytest.raises(CommandRefused, match="source tree"):
        bundle.build(tmp_path / "bundle")


def test_an_architecture_that_lambda_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandRefused, match="arm64 or x86_64"):
        bundle.build(tmp_path / "bundle", "riscv64")
