"""`mapl submit` sends no secret of this machine, whatever it is called and however it is written."""

import base64
import json
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from mapl_ray.distributed.jobs.job_secrets import refuse_secrets
from mapl_ray.errors import UserError

VALUE = "correct-horse-battery"
NAMES = [
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "OPENAI_KEY",
    "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS", "GOOGLE_APIKEY", "GITHUB_TOKEN", "GITHUB_PAT", "GITLAB_PRIVATE_TOKEN", "CI_JOB_JWT",
    "SENTRY_DSN", "SLACK_WEBHOOK_URL", "DB_PASS", "DB_PWD", "MYSQL_PWD", "PGPASSWORD", "SSHPASS_PASSWORD", "PASSWORD",
    "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "TOKEN_2", "AUTH", "BASIC_AUTH", "SECRETKEY", "ACCESSKEY1",
    "SIGNING_KEY", "SSH_KEY", "DJANGO_SECRET", "SESSION_COOKIE", "KAGGLE_KEY", "hf_token", "S3_CREDS",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_secrets({"run.yaml": f"name: {VALUE}"})  # known by nothing
    monkeypatch.setenv(name, VALUE)
    with pytest.raises(UserError, match=rf"run.yaml holds the value of {name}\b") as refused:
        refuse_secrets({"run.yaml": f"name: {VALUE}"})
    assert VALUE not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["PWD", "OLDPWD", "HF_TOKEN_PATH", "RAY_AUTH_MODE", "SSH_AUTH_SOCK", "TOKENIZERS_PARALLELISM", "KEYBOARD_LAYOUT",
     "GOOGLE_APPLICATION_CREDENTIALS_FILE", "MAX_TOKENS_LIMIT", "MONKEYS", "PATHS", "COMPASS", "HOSTNAME"],
)  # fmt: skip
def test_names_of_other_things(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, VALUE)
    refuse_secrets({"run.yaml": f"name: {VALUE}"})


def test_a_path_to_a_secret_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_KEY", str(tmp_path))
    refuse_secrets({"run.yaml": f"output_dir: {tmp_path}"})


@pytest.mark.parametrize(
    "text",
    [
        f"name: {VALUE}",
        f"# {VALUE}",
        'name: "correct\\x2dhorse\\u002dbattery"',
        'name: "correct-horse-\\\n  battery"',
        "name: {deep: [{er: correct-horse-battery}]}",
        "correct-horse-battery: 1",
        f"address: s3://user:{VALUE}@bucket",
        'train.loggers=["correct\\x2dhorse-battery"]',
        f"value: {base64.b64encode(VALUE.encode()).decode()}",
    ],
)
def test_ways_to_write_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    with pytest.raises(UserError, match="it holds the value of HF_TOKEN"):
        refuse_secrets({"it": text})


def test_a_password_in_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE", "postgres://mapl:correct%2Dhorse-battery@db.example/x")
    with pytest.raises(UserError, match=r"DATABASE \(the password in its address\)"):
        refuse_secrets({"run.yaml": f"name: {VALUE}"})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".cache/huggingface/token", VALUE + "\n"),
        (".ray/auth_token", VALUE),
        (".ray/mapl/auth_token", VALUE),
        (".netrc", f"machine api.wandb.ai\n  login user\n  password {VALUE}\n"),
        (".git-credentials", f"https://user:{VALUE}@git.example\n"),
        (".aws/credentials", f"[default]\naws_access_key_id = x\naws_secret_access_key = {VALUE}\n"),
        (".mlflow/credentials", f"[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = {VALUE}\n"),
        (".pypirc", f"[pypi]\nusername = u\npassword = {VALUE}\n"),
        (".kaggle/kaggle.json", json.dumps({"username": "u", "key": VALUE})),
        (".docker/config.json", json.dumps({"auths": {"registry.example": {"auth": VALUE}}})),
        (".config/gcloud/application_default_credentials.json", json.dumps({"refresh_token": VALUE})),
    ],
)
def test_files_of_secrets(file: str, content: str, empty_home: Path) -> None:
    path = empty_home / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"run.yaml holds the value of a secret in ~/{file}"):
        refuse_secrets({"run.yaml": f"name: {VALUE}"})
    path.write_text("{" + "[" * 3, encoding="utf-8")  # damaged: no reason to stop
    refuse_secrets({"run.yaml": f"name: {VALUE}"})


@pytest.mark.parametrize(
    ("token", "kind"),
    [("hf_" + "aB3" * 12, "a Hugging Face token"), ("ghp_" + "a1B2" * 9, "a GitHub token"),
     ("glpat-" + "a1_B" * 5, "a GitLab token"), ("AKIA" + "ABCD" * 4, "an AWS access key"),
     ("sk-proj-" + "a1B2" * 10, "an API key"), ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key")],
)  # fmt: skip
def test_secrets_that_say_what_they_are(token: str, kind: str) -> None:
    with pytest.raises(UserError, match=rf"run.yaml holds {kind}\.") as refused:
        refuse_secrets({"run.yaml": f"name: {token!r}"})
    assert token not in str(refused.value)


def test_what_ray_uploads_of_the_projects_folder(tmp_path: Path) -> None:
    """`ray job submit --working-dir .`, by Ray's own packaging: the code, and no file that holds secrets."""
    project = Path(__file__).resolve().parents[2]
    for name in (".gitignore", ".rayignore", "mapl_ray/distributed/jobs/job_secrets.py", "mapl_ray/demo.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((project / name).read_bytes())
    secret = [".env", ".env.local", "prod.env", ".netrc", "key.pem", "cluster/tls.key", "jobs/.env", ".aws/credentials",
              "secrets.yaml", "id_ed25519", "service-account-prod.json", "auth_token"]  # fmt: skip
    for name in secret:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    package = tmp_path.with_suffix(".zip")
    create_package(str(tmp_path), package, include_gitignore=True)
    with zipfile.ZipFile(package) as uploaded:
        names = {name for name in uploaded.namelist() if not name.endswith("/")}
    assert names == {".gitignore", ".rayignore", "mapl_ray/distributed/jobs/job_secrets.py", "mapl_ray/demo.yaml"}


def test_the_docs_say_what_keeps_secrets_out_of_an_upload() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
    _, _, after = docs.read_text(encoding="utf-8").partition("--working-dir .")
    assert ".rayignore" in after[:2000]
