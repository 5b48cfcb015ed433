"""Visual question answering: questions, the answering model, what the image adds, and the stage on a small project."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.base.errors import ConfigError, InputError, IntegrityError
from components.base.files import read_json, read_table, write_json, write_table
from components.downstream.answering import Answerer, Gallery, choices_of, has_multimodal, logits_of, texts_of
from components.downstream.fitting import fit
from components.downstream.image_tokens import token_statistics
from components.downstream.questions import SIDES, WORDING, QuestionMaker, Topics
from components.downstream.tasks.vqa import _step_loss
from components.encoders import build
from components.encoders.tokenization import ReportTokenizer
from components.evaluation.protocols.vqa import frequent_answers, normal
from components.evaluation.statistics import auroc
from components.volumes.contract import Contract
from tests.evaluation_support import context_at, run_stage, tree_hashes
from tests.generation_support import GREEDY, decoder, fitting, generative_project, inputs_of, report_of
from tests.pretraining_support import CONTRACT, TEXT, VISION

STUDIES = [f"stu_{number:02d}" for number in range(40)]


def cohort() -> SimpleNamespace:
    """Inputs of forty studies: labels and findings only."""
    labels: dict[str, dict[str, int]] = {"Emphysema": {STUDIES[0]: 1}}
    findings = []
    for number, study in enumerate(STUDIES):
        _, known, side = report_of(number)
        for name, value in known.items():
            labels.setdefault(name, {})[study] = value
        for extra in range(3):
            labels.setdefault(f"finding_{extra}", {})[study] = int(number % (extra + 4) == 0)
        status = "present" if side else "absent"
        findings.append({"study_key": study, "finding": "Lung nodule", "status": status, "laterality": side})
    return SimpleNamespace(labels=lambda source: labels, findings=lambda: findings)


@pytest.fixture(scope="module")
def asked():
    maker = QuestionMaker(cohort(), "gold", 3)
    topics = maker.topics(STUDIES[:30], 3)
    return maker, topics, maker.ask(STUDIES, topics, ("yes_no", "closed", "open"))


def test_topics_are_what_the_training_split_can_teach(asked):
    _, topics, _ = asked
    assert "Emphysema" not in topics.findings, "one study has it"
    assert {"Lung nodule", "Pleural effusion"} <= set(topics.findings)
    assert topics.groups == {"region": ("abdomen", "chest")}
    assert topics.sides == ("Lung nodule",)
    assert Topics.of_dict(topics.as_dict()) == topics


def test_questions_are_those_of_the_labels_and_the_same_every_time(asked):
    maker, topics, questions = asked
    again = QuestionMaker(cohort(), "gold", 3).ask(STUDIES, topics, ("yes_no", "closed", "open"))
    assert again == questions
    some = maker.ask(STUDIES[7:9], topics, ("yes_no", "closed", "open"))
    assert some == [one for one in questions if one.study_key in STUDIES[7:9]], "whoever else is asked about"
    labels = cohort().labels("gold")
    for one in questions:
        if one.kind == "yes_no":
            assert one.target == labels[one.topic][one.study_key]
            assert one.answer == ("no", "yes")[one.target]
        elif one.kind == "closed":
            assert one.options[one.target] == one.answer
            assert len(set(one.options)) == len(one.options) <= 4
    sides = {one.answer for one in questions if one.topic == "side of Lung nodule"}
    assert sides == {SIDES["left"], SIDES["right"], SIDES["none"]}


def test_the_right_option_of_which_finding_is_the_only_present_one(asked):
    labels = cohort().labels("gold")
    plain = {name.replace("_", " ").lower(): name for name in labels}
    which = [one for one in asked[2] if one.topic == "which finding"]
    assert which
    for one in which:
        assert [labels[plain[option]][one.study_key] for option in one.options].count(1) == 1


def test_every_wording_and_every_place_of_the_answer_occurs(asked):
    """A seed set anew before each choice would give one wording for all."""
    nodules = Counter(one.text for one in asked[2] if one.kind == "yes_no" and one.topic == "Lung nodule")
    assert len(nodules) == len(WORDING["yes_no"])
    places = Counter(
        one.target for one in asked[2] if one.topic == "side of Lung nodule" and one.kind == "closed"
    )
    assert set(places) == {0, 1, 2, 3}
    other = QuestionMaker(cohort(), "gold", 4).ask(STUDIES, asked[1], ("yes_no",))
    assert [one.text for one in other] != [one.text for one in asked[2] if one.kind == "yes_no"]


@pytest.fixture(scope="module")
def encoder():
    texts = ["is there a lung nodule? pleural effusion is present. the ct shows no side, left or right."] * 3
    texts += ["chest", "abdomen", "both sides", "none", "finding 0, finding 1, finding 2"] * 3
    tokenizer = ReportTokenizer.train(texts, 160, max_length=64, max_sentences=8, max_sentence_pieces=40)
    return build(VISION, TEXT, 8, tokenizer, Contract.model_validate(CONTRACT), seed=1)


def test_a_question_is_a_sentence_not_its_letters(asked, encoder):
    for one in asked[2][:30]:
        for text in texts_of(one):
            assert len(text) == (2 if one.kind == "closed" else 1)
            arrays = encoder.tokenizer.encode([text])
            markers = np.isin(arrays["input_ids"], encoder.tokenizer.marker_ids).sum()
            assert markers == len(text)


def answerer(encoder, tokens: np.ndarray, blind: bool, **sizes) -> Answerer:
    return Answerer(encoder, decoder(**sizes), *token_statistics(tokens), blind=blind, seed=1)


def by_kind(questions):
    return {kind: [one for one in questions if one.kind == kind] for kind in ("yes_no", "closed", "open")}


def trained(model: Answerer, questions, gallery: Gallery, folder: Path, **changes) -> Answerer:
    params = fitting(**changes)

    def loss_of(generator):
        return _step_loss(SimpleNamespace(batch_size=params.batch_size), model, questions, gallery, generator)

    fit(model, loss_of, lambda: float("nan"), params, context_at(folder, "finetune", "vqa"), "vqa")
    return model


def test_with_equal_images_the_question_only_model_is_the_model(asked, encoder, tmp_path):
    tokens = np.repeat(np.random.default_rng(0).normal(size=(1, 4, 6)), 40, 0).astype(np.float32)
    gallery = Gallery(tokens, STUDIES, torch.device("cpu"))
    questions = by_kind(asked[2][:120])
    seeing, blind = (
        trained(answerer(encoder, tokens, one), questions, gallery, tmp_path, steps=4)
        for one in (False, True)
    )
    for name, value in seeing.own_state().items():
        assert torch.equal(value, blind.own_state()[name]), name
    logits = [logits_of(one, questions["yes_no"], gallery, 16) for one in (seeing, blind)]
    assert np.array_equal(*logits)
    assert choices_of(seeing, questions["closed"], gallery, 16) == choices_of(
        blind, questions["closed"], gallery, 16
    )


@pytest.mark.parametrize("text", [TEXT, {**TEXT, "multimodal_layers": 0}], ids=["fused", "beside"])
def test_the_image_answers_and_without_it_nothing_does(asked, encoder, tmp_path, text):
    """Nodules and effusions are written into two channels; held-out studies; a shuffled image answers wrongly."""
    if text is not TEXT:
        encoder = build(VISION, text, 8, encoder.tokenizer, encoder.contract, seed=1)
    labels, rng = cohort().labels("gold"), np.random.default_rng(0)
    tokens = rng.normal(0, 0.1, (40, 4, 6)).astype(np.float32)
    for channel, name in enumerate(("Lung nodule", "Pleural effusion")):
        tokens[:, :, channel] += np.array([2 * labels[name][study] - 1 for study in STUDIES])[:, None]
    gallery = Gallery(tokens, STUDIES, torch.device("cpu"))
    questions = [
        one for one in asked[2] if one.kind == "yes_no" and one.topic in ("Lung nodule", "Pleural effusion")
    ]
    train = {"yes_no": [one for one in questions if one.study_key in STUDIES[:24]]}
    test = [one for one in questions if one.study_key in STUDIES[24:]]
    target = [one.target for one in test]
    assert sum(target) * 2 == len(target)
    changes = {"steps": 160, "batch_size": 24, "warmup_steps": 5, "learning_rate": 0.01}
    model = trained(answerer(encoder, tokens, False), train, gallery, tmp_path, **changes)
    assert model.fused is has_multimodal(encoder.text) is (text is TEXT)

    def score(gallery: Gallery, model: Answerer = model) -> float:
        return float(auroc(target, logits_of(model, test, gallery, 16))(np.ones((1, len(test))))[0])

    assert score(gallery) > 0.85, "32 held-out questions; 0.5 is chance"
    opposite = Gallery(-tokens, STUDIES, torch.device("cpu"))
    assert score(opposite) < 0.3, "it reads the image"
    blind = answerer(encoder, tokens, True).eval()
    assert np.array_equal(logits_of(blind, test, gallery, 16), logits_of(blind, test, opposite, 16))


def test_only_the_adapter_the_multimodal_layers_and_the_heads_are_trained(asked, encoder, tmp_path):
    tokens = np.random.default_rng(0).normal(size=(40, 4, 6)).astype(np.float32)
    model = answerer(encoder, tokens, False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gallery = Gallery(tokens, STUDIES, torch.device("cpu"))
    trained(model, by_kind(asked[2][:60]), gallery, tmp_path, steps=2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("text.multimodal_layers.") for name in changed)
    assert any(name.startswith("adapter.") for name in changed)
    assert not any(name.startswith("text.") and ".multimodal" not in f".{name[5:]}" for name in changed)
    state = model.own_state()
    assert not any(name.startswith(("text.embeddings", "text.text_layers")) for name in state)
    again = answerer(encoder, tokens, False)
    again.load_own_state(state)
    some = [one for one in asked[2] if one.kind == "open"][:3]
    assert again.eval().write(some, gallery.of(some), GREEDY) == model.write(some, gallery.of(some), GREEDY)
    with pytest.raises(RuntimeError, match="names"):
        again.load_own_state({"x": torch.zeros(1)})


def test_the_prior_is_the_most_frequent_answer_and_answers_are_compared_in_words(asked):
    frequent = frequent_answers([one for one in asked[2] if one.topic == "side of Lung nodule"])
    assert frequent == {
        ("closed", "side of Lung nodule"): SIDES["none"],
        ("open", "side of Lung nodule"): SIDES["none"],
    }
    assert normal(" Lung nodule,pleural  effusion.") == normal("lung nodule, pleural effusion")
    assert normal("left") != normal("right")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A project on which the task and its protocol have run."""
    root = generative_project(tmp_path_factory.mktemp("vqa"))
    for stage in ("finetune", "evaluate"):
        assert run_stage(root, stage, "vqa") == 0
    return root


def test_all_test_questions_are_answered_beside_the_question_only_model(done: Path):
    found = read_json(done / "artifacts" / "evaluate" / "vqa" / "metrics.json")
    table = read_table(done / "artifacts" / "evaluate" / "vqa" / "predictions.parquet").to_pylist()
    inputs = inputs_of(done)
    settings = read_json(done / "artifacts" / "finetune" / "vqa" / "vqa.json")
    maker = QuestionMaker(inputs, "gold", settings["seed"])
    test = [row.study_key for row in inputs.studies("test")]
    wanted = maker.ask(test, Topics.of_dict(settings["topics"]), settings["kinds"])
    assert Counter(row["kind"] for row in table) == Counter(one.kind for one in wanted) == found["questions"]
    assert {row["study_key"] for row in table} <= set(test)
    yes_no = {"macro_auroc", "auroc", "accuracy", "f1", "sensitivity", "specificity", "ppv", "npv"}
    assert set(found["yes_no"]) == yes_no
    assert set(found["closed"]) == {"accuracy"}
    assert set(found["open"]) == {"exact_match", "bleu_1", "rouge_1", "meteor"}
    for kind, names in (
        ("yes_no", {"macro_auroc", "accuracy"}),
        ("closed", {"accuracy"}),
        ("open", {"exact_match"}),
    ):
        assert set(found["question_only"][kind]) == set(found["image_gain"][kind]) == names
        for name in names:
            gain = found["image_gain"][kind][name]["value"]
            difference = found[kind][name]["value"] - found["question_only"][kind][name]["value"]
            assert gain == pytest.approx(difference)
            assert found[kind][name]["chance"] is not None
    trained_on = read_json(done / "artifacts" / "finetune" / "vqa" / "metrics.json")
    assert trained_on["open_answers_not_writable"] > 0, "`chest` has a letter that no report here has"
    assert any(row["answer"] == "chest" for row in table if row["kind"] == "open"), (
        "which is asked all the same"
    )
    options = [1 / len(row["options"]) for row in table if row["kind"] == "closed"]
    train = [row.study_key for row in inputs.studies("train")]
    prior = frequent_answers(maker.ask(train, Topics.of_dict(settings["topics"]), ["closed"]))
    guessed = [row["answer"] == prior["closed", row["topic"]] for row in table if row["kind"] == "closed"]
    assert found["closed"]["accuracy"]["chance"] == pytest.approx(max(np.mean(options), np.mean(guessed)))
    sides = found["labels"]["closed: side of Lung nodule"]["accuracy"]
    assert sides["n"] <= len(test)
    right = np.mean([row["said"] == row["answer"] for row in table if row["kind"] == "closed"])
    assert found["closed"]["accuracy"]["value"] == pytest.approx(right)


def test_training_never_sees_the_test_split_and_repeats_to_the_byte(done: Path, tmp_path: Path):
    """With every test label turned round, on a fresh cache, the same bytes are trained and the same thresholds."""
    import pyarrow as pa

    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    shutil.rmtree(copy / ".velvet")
    inputs = inputs_of(copy)
    test = {row.study_key for row in inputs.studies("test")}
    train = {row.patient_key for row in inputs.studies("train")}
    assert train.isdisjoint(row.patient_key for row in inputs.studies("test"))
    path = copy / "artifacts" / "deidentify" / "labels.parquet"
    table = read_table(path)
    rows = [
        {**row, "value": 1 - row["value"]} if row["study_key"] in test and "=" not in row["name"] else row
        for row in table.to_pylist()
    ]
    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))
    before = tree_hashes(done / "artifacts" / "finetune" / "vqa")
    shutil.rmtree(copy / "artifacts" / "finetune" / "vqa")
    assert run_stage(copy, "finetune", "vqa") == 0
    assert tree_hashes(copy / "artifacts" / "finetune" / "vqa") == before


def test_mistakes_are_typed(done: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    assert run_stage(copy, "finetune", "vqa", "--set", "finetune.vqa.min_train=500") == InputError.exit_code
    assert run_stage(copy, "finetune", "vqa", "--set", "finetune.vqa.kinds=[maybe]") == ConfigError.exit_code
    settings = copy / "artifacts" / "finetune" / "vqa" / "vqa.json"
    write_json(settings, {**read_json(settings), "model_sha256": "0" * 64})
    assert run_stage(copy, "evaluate", "vqa") == IntegrityError.exit_code
