"""The Hugging Face Trainer over real small trainings: every record against the groups' own gradients."""

import warnings

import pytest
import torch
from integrations.group_reference import OwnGradients, is_close
from torch import nn

from autospec import AutoSpecError, open_spectra

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own imports
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from autospec.integrations.transformers import record_trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    # positions are shared by all samples
    pytest.mark.filterwarnings("ignore:layer '.*(position_embeddings|wpe)'. called with rows:autospec.AutoSpecWarning"),
]
N, WORDS, LENGTH = 14, 11, 7


class Words(torch.utils.data.Dataset):
    """Texts of several lengths, each with a group, a class and a column that no model takes."""

    def __init__(self, labels, group="group"):
        generator = torch.Generator().manual_seed(1)
        self.rows = []
        for place in range(N):
            words = torch.randint(1, WORDS, (LENGTH,), generator=generator)
            label = words.clone() if labels == "words" else torch.tensor(place % 3)
            if labels == "words":
                label[LENGTH - 1 - place % 4 :] = -100
            if labels == "numbers":
                label = torch.randn((), generator=generator)
            more = {group: place % 5 % 2, "extra": "x", "who": f"s{place}"}
            self.rows.append({"input_ids": words, "labels": label, **more})

    def __len__(self):
        return N

    def __getitem__(self, place):
        return self.rows[place]


def _classifier(labels=3):
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        num_labels=labels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=LENGTH,
    )  # fmt: skip
    torch.manual_seed(3)
    return transformers.BertForSequenceClassification(config)


def _language_model():
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    return transformers.GPT2LMHeadModel(config)


def _checkpointed(model):
    model.activation_checkpointing_enable()
    return model


class PlainLoss(nn.Module):
    """A model of one's own whose forward takes nothing but its inputs, so that the Trainer divides its loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.head = nn.Embedding(WORDS, 6), nn.Linear(6, 3)

    def forward(self, input_ids, labels=None):
        logits = self.head(self.embed(input_ids).mean(1).tanh())
        return {"loss": None if labels is None else nn.functional.cross_entropy(logits, labels), "logits": logits}


def _of_class(net, inputs, smoothing=0.0):
    logits = net(input_ids=inputs["input_ids"])["logits"]
    return nn.functional.cross_entropy(logits, inputs["labels"], reduction="none", label_smoothing=smoothing)


def _by_items(outputs, labels, num_items_in_batch=None):
    return nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def _of_number(net, inputs):
    return (net(input_ids=inputs["input_ids"])["logits"][:, 0] - inputs["labels"]).square()


def _of_words(net, inputs, smoothing=0.0):
    logits = net(input_ids=inputs["input_ids"]).logits[:, :-1]
    target = inputs["labels"][:, 1:]
    losses = nn.functional.cross_entropy(
        logits.transpose(1, 2), target, reduction="none", ignore_index=-100, label_smoothing=smoothing
    )
    return losses.sum(1)


def _items(inputs):
    labels = inputs["labels"]
    return (labels[:, 1:] != -100).sum(1) if labels.dim() == 2 else torch.ones(len(labels))


class Referenced(transformers.Trainer):
    """A Trainer that keeps the reference as it goes; its training is the library's own."""

    def follow(self, losses, divided_by="items"):
        self.own, self.losses, self.divided_by = OwnGradients(), losses, divided_by
        self.add_callback(_Ends(self.own))
        return self

    def get_batch_samples(self, *args):
        samples, number = super().get_batch_samples(*args)
        self.window = samples
        return samples, number

    def training_step(self, model, inputs, num_items_in_batch=None):
        items = _items(inputs)
        total = float(items.sum()) if num_items_in_batch is None else float(num_items_in_batch)
        share = {"items": float(items.sum()) / total, "batches": 1 / len(self.window), "nothing": 1.0}[self.divided_by]
        group = self.groups_of(inputs)
        self.own.add(model, lambda net: self.losses(net, inputs), group, share, items)
        return super().training_step(model, inputs, num_items_in_batch)

    def groups_of(self, inputs):
        key = [tuple(row) for row in inputs["input_ids"].tolist()]
        known = {tuple(row["input_ids"].tolist()): row["group"] for row in self.train_dataset.rows}
        return torch.tensor([known[each] for each in key])


class _Ends(transformers.TrainerCallback):
    def __init__(self, own):
        self.own = own

    def on_epoch_end(self, args, state, control, **_):
        self.own.end()


def _arguments(tmp_path, **options):
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "num_train_epochs": 2}
    quiet |= {"per_device_train_batch_size": 4, "learning_rate": 0.05, "optim": "sgd", "logging_strategy": "no"}
    return transformers.TrainingArguments(output_dir=str(tmp_path / "out"), **(quiet | options))


SITUATIONS = {
    "a classifier": (_classifier, "classes", _of_class, "items", {}),
    # BERT takes num_items_in_batch and ignores it, so that the Trainer leaves its loss undivided
    "accumulated": (_classifier, "classes", _of_class, "nothing", {"gradient_accumulation_steps": 3}),
    "a loss by items": (_classifier, "classes", _of_class, "items", {"gradient_accumulation_steps": 3}),
    "clipped": (_classifier, "classes", _of_class, "items", {"max_grad_norm": 1e-3}),
    "numbers": (lambda: _classifier(1), "numbers", _of_number, "nothing", {"gradient_accumulation_steps": 2}),
    "words": (_language_model, "words", _of_words, "items", {}),
    "words accumulated": (_language_model, "words", _of_words, "items", {"gradient_accumulation_steps": 2}),
    "a model of one's own": (PlainLoss, "classes", _of_class, "batches", {"gradient_accumulation_steps": 3}),
    "half precision": (_classifier, "classes", _of_class, "items", {"bf16": True}),
    "checkpointing": (lambda: _checkpointed(_classifier()), "classes", _of_class, "items", {}),
    "smoothed words": (
        _language_model, "words", lambda net, x: _of_words(net, x, 0.1), "items",
        {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_record_is_the_groups_own_gradient(tmp_path, situation):
    make, labels, losses, divided_by, options = SITUATIONS[situation]
    of_trainer = {"compute_loss_func": _by_items} if situation == "a loss by items" else {}
    trainer = Referenced(make(), _arguments(tmp_path, **options), train_dataset=Words(labels), **of_trainer)
    trainer.follow(losses, divided_by)
    record_trainer(trainer, tmp_path / "s.h5", groups=["a", "b"], floor="formula")
    trainer.train()
    spectra = open_spectra(tmp_path / "s.h5")
    assert spectra.complete
    names = {"classifier.weight", "lm_head.weight", "head.weight", "embed.weight", "bert.pooler.dense.weight"}
    names |= {"bert.encoder.layer.0.intermediate.dense.weight"}
    names |= {"transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"}
    names &= set(trainer.own.records[0][0]) & {f"{layer}.weight" for layer in spectra.layers}
    assert names, (spectra.layers, list(trainer.own.records[0][0]))
    assert is_close(spectra, trainer.own, tolerance=0.1 if "half" in situation else 1e-3, names=names)


def test_training_is_the_same_to_the_bit_and_evaluation_sees_nothing(tmp_path):
    trained = []
    for records in (False, True):
        trainer = transformers.Trainer(
            _classifier(), _arguments(tmp_path, eval_strategy="epoch"), train_dataset=Words("classes"),
            eval_dataset=Words("classes", group="other"),
        )  # fmt: skip
        if records:
            record_trainer(trainer, groups=["a", "b"])
        trainer.train()
        trained.append(trainer.model.classifier.weight.detach())
    assert torch.equal(*trained)


def test_permutations_and_steps(tmp_path):
    trainer = transformers.Trainer(_classifier(), _arguments(tmp_path), train_dataset=Words("classes"))
    asked = {"permutations": 19, "target_is_group": False, "subject_column": "who", "at": "step"}
    record_trainer(trainer, tmp_path / "s.h5", groups=["a", "b"], layers=["classifier"], floor="formula", **asked)
    trainer.train()
    spectra = open_spectra(tmp_path / "s.h5")
    assert spectra.epochs.tolist() == list(range(1, 9))


def test_a_checkpoint_goes_on_to_the_same_numbers(tmp_path):
    found = []
    for folder, parts in (("whole", [None]), ("parts", [2, None])):
        for part in parts:
            options = {"num_train_epochs": 3, "save_strategy": "epoch", "max_steps": -1}
            arguments = _arguments(tmp_path / folder, **options)
            trainer = transformers.Trainer(_classifier(), arguments, train_dataset=Words("classes"))
            if part is not None:
                trainer.add_callback(_StopsAfter(part))
            asked = {"groups": ["a", "b"], "layers": ["classifier"], "floor": "formula"}
            record_trainer(trainer, tmp_path / f"{folder}.h5", **asked)
            trainer.train(resume_from_checkpoint=part is None and len(parts) > 1)
        found.append(open_spectra(tmp_path / f"{folder}.h5"))
    assert found[0].epochs.tolist() == found[1].epochs.tolist() == [0, 1, 2]
    values = [spectra["classifier"]["gradient"].values for spectra in found]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


class _StopsAfter(transformers.TrainerCallback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, args, state, control, **_):
        control.should_training_stop = round(state.epoch) >= self.epochs


def test_an_exception_closes_the_file_with_what_was_recorded(tmp_path):
    class Breaks(transformers.Trainer):
        def training_step(self, *args, **keywords):
            if self.state.global_step == 5:
                raise RuntimeError("the loop's own")
            return super().training_step(*args, **keywords)

    trainer = Breaks(_classifier(), _arguments(tmp_path), train_dataset=Words("classes"))
    record_trainer(trainer, tmp_path / "s.h5", groups=["a", "b"], layers=["classifier"], floor="formula")
    with pytest.raises(RuntimeError, match="the loop's own"):
        trainer.train()
    assert open_spectra(tmp_path / "s.h5").epochs.tolist() == [0]


MISTAKES = {
    "devices": ({"_n_gpu": 2}, {}, "n_gpu=2: one process on several devices is not recorded; start one for each"),
    "column": ({}, {"column": "sex"}, "column='sex': the training set has no such column; a sample has input_ids"),
    "compiled": ({"torch_compile": True}, {}, "torch_compile=True: the Trainer compiles another model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, mistake):
    of_trainer, options, message = MISTAKES[mistake]
    trainer = transformers.Trainer(_classifier(), _arguments(tmp_path), train_dataset=Words("classes"))
    for name, value in of_trainer.items():
        setattr(trainer.args, name, value)
    with pytest.raises(AutoSpecError, match=message) as raised:
        record_trainer(trainer, groups=["a", "b"], **options)
        trainer.train()
    assert "\n" not in str(raised.value)
