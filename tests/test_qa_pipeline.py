"""QA-CLIMS from questions to maps: what is asked once, what is shared, and what a changed setting costs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.test_commands import call, plain
from tiny_recipe import CAM_RECIPE, Recorder, qa_recipe, random_teacher, random_vqa, write_recipe
from wsss.data.scenes import answer
from wsss.engine import answers_work
from wsss.engine.estimate import estimate
from wsss.engine.image_texts import image_texts, image_texts_of_file
from wsss.engine.recipe import load_recipe
from wsss.engine.run import RunResult, read_run, run
from wsss.errors import DataError, RecipeError, StageError
from wsss.models.vqa import HuggingFaceVqa
from wsss.questions.answers import read_answers
from wsss.questions.pair_texts import read_pair_texts

IMAGE = "w7_train_00000"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    recipe = qa_recipe(random_teacher(folder / "teacher"), random_vqa(folder / "vqa"))
    write_recipe(folder / "qa.yaml", recipe)
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> RunResult:
    return run(place / "qa.yaml", runs=place / "runs")


def again(place: Path, *overrides: str, until: str | None = None) -> tuple[RunResult, list[str]]:
    """Run with other settings; which stages had to work."""
    listener = Recorder()
    recipe = load_recipe(place / "qa.yaml", overrides)
    return run(recipe, runs=place / "runs", until=until, progress=listener), listener.started_titles


def stage_folder(result: RunResult, name: str) -> Path:
    stages = {stage["name"]: stage["folder"] for stage in read_run(result.folder)["stages"]}
    return (result.folder / stages[name]).resolve()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Questions that reach the model from now on."""
    found: list[str] = []
    honest = HuggingFaceVqa.answer

    def counted(self, images, questions):
        found.extend(question for own in questions for question in own)
        return honest(self, images, questions)

    monkeypatch.setattr(HuggingFaceVqa, "answer", counted)
    return found


def test_a_run_asks_prepares_trains_and_scores(finished: RunResult, place: Path) -> None:
    record = read_run(finished.folder)
    assert [stage["name"] for stage in record["stages"]] == [
        *("data", "ask-questions", "prepare", "initialise", "train-method", "activate", "pseudo-masks")
    ]
    assert record["supervision"] == "I+L"
    assert len(record["weights"]["vqa"]) == 64
    answers = read_answers(stage_folder(finished, "ask-questions") / "answers.jsonl")
    assert answers.header.settings["beams"] == 3
    pairs = list(read_pair_texts(stage_folder(finished, "prepare") / "cache" / "texts.jsonl"))
    assert {(pair.image_id, pair.class_name) for pair in pairs} == set(answers.pairs)
    assert all(len(given) == 16 for given in answers.pairs.values())
    losses = json.loads((stage_folder(finished, "train-method") / "log.jsonl").read_text().splitlines()[-1])[
        "losses"
    ]
    assert set(losses) == {"FRC", "BRC", "REG"}
    assert [e["background_score_source"] for e in finished.scores["maps"]["entries"]]


def test_a_second_run_does_nothing(finished: RunResult, place: Path, asked: list[str]) -> None:
    _, started = again(place)
    assert started == []
    assert asked == []


def test_other_loss_weights_share_answers_and_texts(
    finished: RunResult, place: Path, asked: list[str]
) -> None:
    result, started = again(place, "method.brc_weight=3", until="prepare")
    assert started == []
    assert stage_folder(result, "prepare") == stage_folder(finished, "prepare")


def test_other_groups_make_other_texts_of_the_same_answers(
    finished: RunResult, place: Path, asked: list[str]
) -> None:
    result, started = again(place, "method.background=[scene]", until="prepare")
    assert started == ["Prepare the method"]
    assert asked == []
    assert stage_folder(result, "ask-questions") == stage_folder(finished, "ask-questions")


def test_a_new_question_is_asked_alone(finished: RunResult, place: Path, asked: list[str]) -> None:
    recipe = load_recipe(place / "qa.yaml")
    assert recipe.method is not None
    groups = {**recipe.method.config.questions, "colour": ["what colour is the {}?"]}
    result, started = again(place, f"method.questions={json.dumps(groups)}", until="ask-questions")
    assert started == ["Ask questions about the images"]
    pairs = read_answers(stage_folder(finished, "ask-questions") / "answers.jsonl").pairs
    assert len(asked) == len(pairs)
    assert all(question.startswith("what colour is the ") for question in asked)
    assert all(
        len(given) == 17
        for given in read_answers(stage_folder(result, "ask-questions") / "answers.jsonl").pairs.values()
    )


def test_an_interrupted_asking_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    from wsss.questions import asking

    monkeypatch.setattr(asking, "IMAGES_AT_ONCE", 5)
    honest, calls = HuggingFaceVqa.answer, []

    def weak(self, images, questions):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(self, images, questions)

    monkeypatch.setattr(HuggingFaceVqa, "answer", weak)
    monkeypatch.setattr(asking.ask, "__kwdefaults__", {**asking.ask.__kwdefaults__, "images_at_once": 5})
    with pytest.raises(KeyboardInterrupt):
        run(place / "qa.yaml", runs=tmp_path, until="ask-questions")
    before = len(asked)
    result = run(place / "qa.yaml", runs=tmp_path, until="ask-questions")
    whole = read_answers(stage_folder(result, "ask-questions") / "answers.jsonl")
    assert before > 0
    assert len(asked) == 16 * len(whole.pairs)  # nothing twice


def test_the_oracle_answers_as_the_generator_and_is_named(finished: RunResult, place: Path) -> None:
    result, started = again(place, "method.vqa=oracle", until="train-method")
    assert started[0] == "Ask questions about the images"
    record = read_run(result.folder)
    assert record["supervision"] == "I+L (oracle)"
    assert "vqa" not in record["weights"]
    found = read_answers(stage_folder(result, "ask-questions") / "answers.jsonl")
    tree = stage_folder(result, "data") / "tree"
    lines = (tree / "scenes.jsonl").read_text().splitlines()
    metadata = {entry["image_id"]: entry for entry in map(json.loads, lines)}
    for (image_id, name), given in found.pairs.items():
        assert given[f"what is above the {name}?"] == answer(metadata[image_id], name, "above")


def test_answers_of_ones_own_are_used_as_they_are(finished: RunResult, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = (stage_folder(finished, "ask-questions") / "answers.jsonl").read_text().splitlines()
    pair = json.loads(lines[1])
    pair["answers"][f"what is above the {pair['noun']}?"] = "a blue lagoon"
    path.write_text("\n".join([lines[0], json.dumps(pair), *lines[2:]]) + "\n")
    result, started = again(place, f"method.vqa={{answers_file: {path}}}", until="prepare")
    assert started == ["Prepare the method"]
    texts = list(read_pair_texts(stage_folder(result, "prepare") / "cache" / "texts.jsonl"))
    assert texts[0].background[0] == "a blue lagoon"
    path.write_text(path.read_text().replace("blue", "green"))
    _, started = again(place, f"method.vqa={{answers_file: {path}}}", until="prepare")
    assert started == ["Prepare the method"]  # the file's content counts
    path.unlink()
    with pytest.raises(RecipeError, match="no answers file"):
        again(place, f"method.vqa={{answers_file: {path}}}", until="prepare")


def test_the_oracle_knows_generated_scenes_only(place: Path, tmp_path: Path) -> None:
    recipe = qa_recipe(place / "teacher", "oracle")
    path = write_recipe(tmp_path / "own.yaml", recipe, data={"kind": "folder", "root": str(tmp_path)})
    with pytest.raises(RecipeError, match="knows generated scenes only"):
        load_recipe(path)
    recipe["method"]["vqa"] = {"model": "oracle", "answers_file": "x.jsonl"}
    with pytest.raises(RecipeError, match="exclude each other"):
        load_recipe(write_recipe(tmp_path / "both.yaml", recipe))
    recipe["method"]["vqa"] = {"min_length": 20}
    with pytest.raises(RecipeError, match="at most `max_length`"):
        load_recipe(write_recipe(tmp_path / "both.yaml", recipe))


def test_what_can_not_work_is_found_before_anything_is_asked(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a mask-adapted teacher"):
        run(load_recipe(place / "qa.yaml", ["method.mask_mode=token"]), runs=tmp_path / "runs")
    assert not (tmp_path / "runs" / "answers").exists()
    if importlib.util.find_spec("nltk") is None:
        with pytest.raises(StageError, match="nltk"):
            run(
                load_recipe(place / "qa.yaml", ["method.cleaning.lemmatiser=wordnet"]), runs=tmp_path / "runs"
            )
    with pytest.raises(RecipeError, match="asks no questions"):
        load_recipe(place / "qa.yaml", ["method.texts=tags"])
    recipe = qa_recipe(place / "teacher", "oracle")
    recipe["initialise"]["method"] = recipe["method"]
    with pytest.raises(RecipeError, match="needs work of its own"):
        load_recipe(write_recipe(tmp_path / "start.yaml", recipe))


def test_kept_answers_of_the_oracle_stay_named_as_such(place: Path, tmp_path: Path) -> None:
    result, _ = again(place, "method.vqa=oracle", until="ask-questions")
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((stage_folder(result, "ask-questions") / "answers.jsonl").read_bytes())
    recipe = load_recipe(place / "qa.yaml", [f"method.vqa={{answers_file: {kept}}}"])
    assert recipe.supervision == "I+L (oracle)"


def test_a_method_of_ones_own_is_not_prepared_again_for_an_export_setting(tmp_path: Path) -> None:
    from wsss.engine.stage_inputs import prepare_settings
    from wsss.methods.qa_clims import QaClims

    whole = load_recipe(write_recipe(tmp_path / "qa.yaml", qa_recipe(tmp_path, "oracle"))).method
    assert whole is not None
    other = whole.model_copy(update={"config": whole.config.model_copy(update={"export": "relu"})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QaClims, "prepare_fields", None)
        assert prepare_settings(whole) == prepare_settings(other)


def test_the_estimate_knows_the_asking(place: Path, tmp_path: Path) -> None:
    figures = estimate(load_recipe(place / "qa.yaml"), runs=tmp_path / "none")
    by_title = {stage.title: stage for stage in figures.stages}
    assert by_title["Ask questions about the images"].seconds > 0
    assert by_title["Train qa_clims"].seconds > 0


def test_a_resolved_recipe_says_whom_it_asks(place: Path) -> None:
    text = load_recipe(place / "qa.yaml").to_yaml()
    assert "beams: 3" in text
    again_ = load_recipe(write_recipe(place / "resolved.yaml", load_recipe(place / "qa.yaml").resolved()))
    assert again_.resolved()["method"] == load_recipe(place / "qa.yaml").resolved()["method"]


def test_images_can_be_looked_at(finished: RunResult, place: Path) -> None:
    shown = image_texts(place / "qa.yaml", IMAGE, runs=place / "runs")
    stored = list(read_pair_texts(stage_folder(finished, "prepare") / "cache" / "texts.jsonl"))
    assert list(shown.pairs) == [pair for pair in stored if pair.image_id == IMAGE]
    path = stage_folder(finished, "ask-questions") / "answers.jsonl"
    assert image_texts_of_file(path, IMAGE).pairs == shown.pairs
    with pytest.raises(DataError, match="no image `nobody`"):
        image_texts(place / "qa.yaml", "nobody", runs=place / "runs")
    with pytest.raises(StageError, match="not been asked yet"):
        image_texts(place / "qa.yaml", IMAGE, runs=place / "elsewhere")
    with pytest.raises(DataError, match="no answers about `nobody`"):
        image_texts_of_file(path, "nobody")
    cam = write_recipe(place / "cam.yaml", CAM_RECIPE)
    with pytest.raises(RecipeError, match="uses no texts"):
        image_texts(cam, IMAGE)


def test_the_command_shows_answers_and_texts(finished: RunResult, place: Path) -> None:
    result = call("questions", "show", IMAGE, "--recipe", place / "qa.yaml", "--runs", place / "runs")
    assert result.exit_code == 0, result.output
    assert "foreground:" in result.stdout
    assert "background:" in result.stdout
    assert "what is above the" in plain(result.stdout)
    path = stage_folder(finished, "ask-questions") / "answers.jsonl"
    as_json = call("questions", "show", IMAGE, "--answers", path, "--json")
    assert json.loads(as_json.stdout)["pairs"]
    neither = call("questions", "show", IMAGE)
    assert neither.exit_code == 2


def test_asking_sees_no_masks(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    honest = answers_work.ask

    def watched(dataset, *arguments, **options):
        seen.append(type(dataset).__name__)
        return honest(dataset, *arguments, **options)

    monkeypatch.setattr(answers_work, "ask", watched)
    run(place / "qa.yaml", runs=tmp_path, until="ask-questions")
    assert seen == ["WithoutMasks"]


def test_two_processes_ask_once_and_train_together(place: Path, tmp_path: Path) -> None:
    command = [
        "-m",
        "wsss",
        "run",
        str(place / "qa.yaml"),
        "--runs",
        str(tmp_path),
        "--until",
        "train-method",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([*launch, *command], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    (answers,) = (tmp_path / "answers").glob("*.jsonl")
    pairs = [line for line in answers.read_text().splitlines()[1:] if line]
    assert len(pairs) == len(read_answers(answers).pairs)  # one line each: nobody asked twice
    (folder,) = tmp_path.glob("qa-seed0")
    names = [stage["name"] for stage in read_run(folder)["stages"]]
    assert names == ["data", "ask-questions", "prepare", "initialise", "train-method"]
