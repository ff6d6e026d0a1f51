"""What a value in a file, an override or an option is read as: what the type of its field says."""

import os
from pathlib import Path

import pytest

from mapl_ray.cli import main
from mapl_ray.config import RunConfig, load_config, override_text
from mapl_ray.errors import UserError

# Texts that YAML reads otherwise: a comment, a mapping, a list, a boolean, a date, numbers, quotes.
TEXTS = [
    "pairs #2.jsonl", "my: file.jsonl", "[x].jsonl", "{a}.jsonl", "yes", "no", "on", "2024-01-01", "0123", "1e5",
    "1:30", "'quoted'.jsonl", '"x"', "a, b.jsonl", "*.jsonl", "&a.jsonl", "!x", "- x", "x:", "@x", "%x", "| x", "😀",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_an_override_of_a_text_is_that_text(text: str) -> None:
    assert load_config(None, [f"data.path={text}"]).data.path == text
    assert load_config(None, [f"model.name_or_path={text}", f"data.revision={text}"]).data.revision == text
    assert load_config(None, [f"evaluation.sets.mine={text}"]).evaluation.sets["mine"].path == text
    assert load_config(None, [f"train.deepspeed_config={text}"]).train.deepspeed_config == text
    assert load_config(None, [("data.path", text)]).data.path == text


@pytest.mark.parametrize("text", TEXTS)
def test_an_option_is_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["synthesize", f"--data={text}", f"--model={text}", "--print-config"]
    with pytest.raises(SystemExit):
        main(words)
    import yaml

    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["data"]["path"], printed["model"]["name_or_path"]) == (text, text)


def test_options_of_evaluation_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    models = ["runs/lr=1e-5/model", "yes", "a #2", "😀"]
    with pytest.raises(SystemExit):
        main(["evaluate", "--models", *models, "--set", "mine=x #1: y=z.jsonl", "--print-config"])
    printed = yaml.safe_load(capsys.readouterr().out)["evaluation"]
    assert printed["models"] == models
    assert printed["sets"]["mine"]["path"] == "x #1: y=z.jsonl"


@pytest.mark.parametrize("text", ["2024-11-29", "yes", "no", "1e5", "0123", "1_000", "12:30:45", "0x1F", "1.5", "off"])
def test_a_plain_scalar_of_a_text_field_is_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"data: {{revision: {text}, path: {text}, benchmarks: [{text}]}}\n"
        f"synthesis: {{family_weights: {{{text}: 0.5}}}}\n"
        f"evaluation: {{sets: {{one: {text}}}, models: [{text}]}}\n"
        f"rm: {{lora: {{target_modules: [{text}]}}}}\n" + (f"name: {text}\n" if ":" not in text else "")
    )
    config = load_config(path)
    assert (config.data.revision, config.data.path, config.data.benchmarks) == (text, text, (text,))
    assert config.synthesis.family_weights == {text: 0.5}
    assert (config.evaluation.sets["one"].path, config.evaluation.models) == (text, (text,))
    lora = config.training("rm").lora
    assert lora is not None
    assert lora.target_modules == [text]
    assert config.name == (text if ":" not in text else "mapl")


def test_other_fields_are_read_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 010\ntrain: {epochs: 1_000, bf16: yes, learning_rate: 5e-6, zero_stage: 3}\n")
    config = load_config(path, ["data.limit=0020", "train.lora=null", "data.revision=null", "scoring.ref_logps=no"])
    assert (config.seed, config.train.epochs, config.train.bf16) == (10, 1000, True)
    assert (config.train.learning_rate, config.train.zero_stage, config.data.limit) == (5e-6, 3, 20)
    assert (config.train.lora, config.data.revision, config.scoring.ref_logps) == (None, None, False)
    assert load_config(None, ["data.benchmarks=[a, 2024-01-01]"]).data.benchmarks == ("a", "2024-01-01")
    over = load_config(None, ["train.deepspeed_config={a: 1}", "rm.deepspeed_config=my #1.json"])
    assert (over.train.deepspeed_config, over.training("rm").deepspeed_config) == ({"a": 1}, "my #1.json")


@pytest.mark.parametrize("override", ["train.epochs=yes", "seed=true", "seed=1:30", "train.beta=on", "seed=2024-01-01"])
def test_a_number_is_not_guessed_at(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(UserError, match=f"{key}='{value}': .*valid"):
        load_config(None, [override])


def test_an_override_survives_its_own_text() -> None:
    for key, value in {
        "data.path": "a #1",
        "evaluation.models": ["a #1", "😀"],
        "evaluation.sets.x": {"path": "y: z"},
    }.items():
        config = load_config(None, [override_text(key, value)]).model_dump(mode="json", exclude_unset=True)
        for part in key.split("."):
            config = config[part]
        assert config == value


def test_variables_and_home_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", "/scratch")
    overrides = [
        "output_dir=~/runs", "data.path=$HOME/pairs.jsonl", "data.benchmarks=[~/b.txt]",
        "model.name_or_path=${SCRATCH}/m", "scoring.reward_model=~/rm",
        "scoring.judge.model=$SCRATCH/judge", "evaluation.models=[$SCRATCH/x]",
        "evaluation.reference=~", "evaluation.sets.mine=~/set.jsonl", "train.deepspeed_config=~/ds.json",
        "synthesis.modules=[$SCRATCH/mine.py]",
    ]  # fmt: skip
    config = load_config(None, overrides)
    assert config.output_dir == f"{tmp_path}/runs"
    assert config.run_dir == tmp_path.resolve() / "runs" / "mapl"
    assert (config.data.path, config.data.benchmarks) == (f"{tmp_path}/pairs.jsonl", (f"{tmp_path}/b.txt",))
    assert (config.model.name_or_path, config.scoring.reward_model) == ("/scratch/m", f"{tmp_path}/rm")
    assert (config.scoring.judge.model, config.evaluation.models) == ("/scratch/judge", ("/scratch/x",))
    assert (config.evaluation.reference, config.evaluation.sets["mine"].path) == (
        str(tmp_path),
        f"{tmp_path}/set.jsonl",
    )
    assert (config.train.deepspeed_config, config.synthesis.modules) == (f"{tmp_path}/ds.json", ("/scratch/mine.py",))
    assert load_config(None, overrides, as_written=True).output_dir == "~/runs"
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output_dir=$NO_SUCH_VARIABLE/runs", r"output_dir='\$NO_SUCH_VARIABLE/runs': \$NO_SUCH_VARIABLE is not set"),
        ("output_dir=~nobody-of-that-name/runs", "no user 'nobody-of-that-name'"),
        ("data.path=", "data.path='': expected a path or a name, got an empty text"),
        ("scoring.reward_model=", "scoring.reward_model='': expected a path or a name"),
    ],
)
def test_a_path_that_means_nothing_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


def test_a_file_of_that_very_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "price in $HOME.jsonl").touch()
    assert load_config(None, ["data.path=price in $HOME.jsonl"]).data.path == "price in $HOME.jsonl"
    assert load_config(None, ["data.path=pairs$2.jsonl"]).data.path == "pairs$2.jsonl"  # no name of a variable


def test_a_password_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LOGIN", "me:secret")
    with pytest.raises(UserError, match=r"data\.path: a password in an address") as caught:
        load_config(None, ["data.path=s3://$LOGIN@host/x"])
    assert "secret" not in str(caught.value)


def test_an_empty_option_is_not_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthesize", "--data", "", "--print-config"]) == 2
    assert "data.path='': expected a path or a name" in capsys.readouterr().err
