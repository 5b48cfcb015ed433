"""What VELVET-Med (4.1) and COLIPRI (4.2) must do downstream with text, one test a requirement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from components.downstream.answering import Answerer, texts_of
from components.downstream.facts import statements
from components.downstream.image_tokens import token_statistics
from components.downstream.questions import Question
from components.downstream.report_writer import ReportWriter
from components.encoders import build
from components.encoders.tokenization import ReportTokenizer
from components.encoders.vocabulary import SPECIAL_TOKENS
from components.evaluation import clinical_metrics as clinical
from components.evaluation import text_metrics as surface
from components.evaluation.protocols.report_generation import Scorer
from components.volumes.contract import Contract
from tests.generation_support import GREEDY, REPORTS, decoder
from tests.pretraining_support import CONTRACT, TEXT, VISION

TEXTS = [" ".join(one) for one in REPORTS]


def tiny_bert(folder: Path) -> Path:
    """A BERT with its tokenizer in a folder, as BERTScore reads one."""
    from transformers import BertConfig, BertModel

    words = sorted({word for text in TEXTS for word in text.lower().replace(".", " .").split()})
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words]) + "\n")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    size = len(SPECIAL_TOKENS) + len(words)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=size, **sizes), add_pooling_layer=False).save_pretrained(folder)
    return folder


def scorer(bertscore: surface.BertScore | None) -> Scorer:
    truth = clinical.Findings.of_reports(REPORTS)
    judged = tuple(name for name, column in zip(truth.names, truth.values.T, strict=True) if column.any())
    gold = clinical.Findings.of_labels({}, ["a", "b", "c", "d"])
    return Scorer(REPORTS, gold, judged, (), surface.CiderD(TEXTS), bertscore)


def once(metric) -> float:
    return float(metric(np.ones((1, len(REPORTS))))[0])


def test_4_1_9_vqa_closed_and_open_and_reports_with_their_metrics(tmp_path: Path) -> None:
    """Yes/no from the fused [CLS], closed and open questions; BLEU-1..4, ROUGE-L, METEOR, CIDEr-D and BERTScore."""
    told = ["is there a nodule? on which side is it? left, right or both."] * 3
    tokenizer = ReportTokenizer.train(told, 110, max_length=64, max_sentences=8, max_sentence_pieces=40)
    encoder = build(VISION, TEXT, 8, tokenizer, Contract.model_validate(CONTRACT), seed=1)
    tokens = np.random.default_rng(0).normal(size=(5, 8, encoder.vision.channels[-1])).astype(np.float32)
    model = Answerer(encoder, decoder(), *token_statistics(tokens), blind=False, seed=1).eval()
    assert [type(part) for part in model.yes_no] == [nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear]
    trained = {name.split(".")[0] for name, one in model.text.named_parameters() if one.requires_grad}
    assert trained == {"multimodal_layers"}, "the text layers stay as they are"
    yes_no = Question("a", "yes_no", "nodule", "Is there a nodule?", (), "yes", 1)
    closed = Question("a", "closed", "side", "On which side is it?", ("left", "right", "both"), "left", 0)
    free = Question("a", "open", "side", "On which side is it?", (), "left", -1)
    image = torch.from_numpy(tokens[:1])
    states, _, vector = model.read(texts_of(yes_no), image)
    assert torch.equal(vector, states[:, 0]), "the fused [CLS]"
    assert model.yes_no_logits([yes_no], image).shape == (1,)
    assert model.option_scores([closed], image).shape == (1, 3)
    assert isinstance(model.write([free], image, GREEDY)[0], str)
    assert all(bool(torch.isfinite(model.loss([one], image))) for one in (yes_no, closed, free))
    found = scorer(surface.BertScore(tiny_bert(tmp_path))).metrics(REPORTS)["surface"]
    wanted = {*(f"bleu_{order}" for order in range(1, 5)), "rouge_l", "meteor", "cider_d", "bertscore_f1"}
    assert set(found) == wanted
    best = {"cider_d": 10.0}
    for name, metric in found.items():
        if name != "meteor":
            assert once(metric) == pytest.approx(best.get(name, 1.0), abs=1e-6), name
    wrong = scorer(surface.BertScore(tmp_path)).metrics(REPORTS[1:] + REPORTS[:1])["surface"]
    assert all(once(wrong[name]) < once(found[name]) for name in wanted)


def test_4_2_7_report_generation_from_image_tokens_is_scored_by_entailment() -> None:
    """A decoder over frozen tokens; precision and recall of statements in both directions, all and positive only."""
    tokenizer = ReportTokenizer.train(TEXTS * 3, 200, max_length=64, max_sentences=8, max_sentence_pieces=40)
    tokens = np.random.default_rng(0).normal(size=(4, 27, 6)).astype(np.float32)
    writer = ReportWriter(decoder(), tokenizer.vocab_size, *token_statistics(tokens), seed=1).eval()
    for beams in (1, 3):
        params = GREEDY.model_copy(update={"beams": beams, "no_repeat_ngram": 2, "max_tokens": 12})
        written = writer.write(tokens, tokenizer, params)
        assert len(written) == 4
        assert all(isinstance(sentence, str) for report in written for sentence in report)
    perfect = scorer(None).metrics(REPORTS)["clinical"]
    other_side = [[one.replace("left", "right") for one in report] for report in REPORTS]
    silent = [[one for one in report if one.startswith("No")] for report in REPORTS]
    swapped, normal = (scorer(None).metrics(one)["clinical"] for one in (other_side, silent))
    for prefix in ("statement", "positive_statement"):
        parts = [f"{prefix}_{part}" for part in ("precision", "recall", "f1")]
        assert [once(perfect[name]) for name in parts] == [1.0, 1.0, 1.0]
        assert once(swapped[f"{prefix}_f1"]) < 1.0, "a wrong side is not entailed"
    assert once(swapped["ce_f1_micro"]) == 1.0, "which CE-F1 does not see"
    assert once(normal["statement_precision"]) == 1.0
    assert once(normal["statement_recall"]) == pytest.approx(
        len(silent) / sum(len(statements(r)) for r in REPORTS)
    )
    assert once(normal["positive_statement_f1"]) == 0.0, "only what is normal was said"
