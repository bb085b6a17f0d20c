"""A program that ``torchrun``, ``accelerate launch`` or Lightning starts in two processes: trains, and records."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

GROUPS = ["a", "b", "c"]
EPOCHS, SIZE, RATE = 2, 2, 0.1
SHARDS = {
    # as samplers deal them out: the first sample comes once more at the end, so that both have as many
    "padded": ([[0, 2], [4, 6], [8, 10]], [[1, 3], [5, 7], [9, 0]]),
    "uneven": ([[0, 2], [4, 6], [8, 10]], [[1, 3], [5, 7], [9]]),
    # batches are dealt out whole, and the last is filled with the first samples
    "padded batches": ([[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10, 0]]),
    "uneven batches": ([[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10]]),
}
"""Which samples are in each batch of each process."""


def data() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and groups."""
    generator = torch.Generator().manual_seed(2)
    inputs, targets = (torch.randn(11, width, generator=generator, dtype=torch.float64) for width in (4, 3))
    return inputs, targets, torch.arange(11) % 3


class Rows(nn.Module):
    """Its last layer sees two rows of each sample, and tells samples from rows by what follows alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).tanh().view(-1, 3)).view(len(inputs), 2, 3).sum(1)


def network() -> Rows:
    torch.manual_seed(5)
    return Rows().double()


def losses(net: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return (net(inputs) - targets).square().mean(1)


class Own(torch.utils.data.Sampler):
    """The samples of one process, in their batches."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


# --- Lightning --------------------------------------------------------------------------------------------------------


def with_lightning(folder: Path) -> None:
    import logging

    import lightning.pytorch as lightning

    from autospec.integrations.lightning import SpectraCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return losses(self.net, batch[0], batch[1]).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    def fit(name: str, shards: str, epochs: int = EPOCHS, goes_on: bool = False, **options: Any) -> None:
        loader = DataLoader(TensorDataset(*data()), batch_sampler=Own(SHARDS[shards][rank]))
        spectra = SpectraCallback(folder / f"{name}.h5", groups=GROUPS, group=2, statistics=("gradient", "activation"))
        keeps = lightning.callbacks.ModelCheckpoint(folder / name, "last", save_on_train_epoch_end=True)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, callbacks=[spectra, keeps], **options,
        )  # fmt: skip
        module = Module()
        trainer.fit(module, loader, ckpt_path=folder / name / "last.ckpt" if goes_on else None, weights_only=False)
        save(folder, name, trainer.global_rank, module.net)

    rank = int(os.environ.get("LOCAL_RANK", "0"))
    fit("padded", "padded")
    fit("uneven", "uneven", accumulate_grad_batches=2)
    fit("resumed", "padded", epochs=1)
    fit("resumed", "padded", goes_on=True)


# --- Accelerate -------------------------------------------------------------------------------------------------------


def with_accelerate(folder: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    from autospec.integrations.accelerate import AcceleratedRecorder

    def fit(name: str, accumulated: int = 1, **loading: Any) -> None:
        accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulated, dataloader_config=DataLoaderConfiguration(**loading)
        )
        net = network()
        loader = DataLoader(TensorDataset(*data()), batch_size=SIZE)
        model, optimizer, loader = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=RATE), loader)
        options = {"groups": GROUPS, "statistics": ("gradient", "activation")}
        with AcceleratedRecorder(accelerator, model, folder / f"{name}.h5", **options) as recorder:
            for _ in range(EPOCHS):
                for inputs, targets, group in loader:
                    with accelerator.accumulate(model):
                        with recorder.batch(group):
                            accelerator.backward(losses(model, inputs, targets).mean())
                        optimizer.step()
                        optimizer.zero_grad()
                recorder.end_epoch()
        save(folder, name, accelerator.process_index, net)

    fit("padded batches")
    fit("uneven batches", accumulated=2, even_batches=False)


# --- the Trainer ------------------------------------------------------------------------------------------------------


class Columns(Dataset):
    """Samples as the Trainer takes them; of ``Words`` the last few are not counted."""

    def __init__(self, words: bool = False) -> None:
        inputs, targets, groups = data()
        self.rows = [
            {"inputs": one, "labels": target, "group": int(group)}
            for one, target, group in zip(inputs, targets, groups, strict=True)
        ]
        if words:
            self.rows = [
                {"input_ids": torch.arange(place, place + 5) % 7, "labels": of_words(place), "group": row["group"]}
                for place, row in enumerate(self.rows)
            ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.rows[place]


def of_words(place: int) -> Tensor:
    """Labels of a text's words, of which the last few are not counted."""
    labels = torch.arange(place + 1, place + 6) % 7
    labels[5 - place % 3 :] = -100
    return labels


class Regression(nn.Module):
    """Divides its loss by nothing but its own samples."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        output = self.net(inputs)
        return {"loss": (output - labels).square().mean(), "logits": output}


class Words(nn.Module):
    """Divides its loss by the number of words that it is told."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embed, self.head = nn.Embedding(7, 4).double(), nn.Linear(4, 7).double()

    def forward(self, input_ids: Tensor, labels: Tensor, num_items_in_batch: Any = None, **_: Any) -> Any:
        logits = self.head(self.embed(input_ids).tanh())
        total = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="sum")
        counted = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / counted, "logits": logits}


def with_trainer(folder: Path) -> None:
    from transformers import Trainer, TrainingArguments

    from autospec.integrations.transformers import record_trainer

    def fit(name: str, model: nn.Module, columns: Columns, goes_on: bool = False, epochs: int = EPOCHS, **options: Any):
        arguments = TrainingArguments(
            output_dir=str(folder / name), use_cpu=True, num_train_epochs=epochs, per_device_train_batch_size=SIZE,
            optim="sgd", learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[],
            disable_tqdm=True, logging_strategy="no", save_strategy="epoch", ddp_backend="gloo",
            ddp_find_unused_parameters=False, **options,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=columns)
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(columns)
        asked = {"groups": GROUPS, "statistics": ("gradient", "activation")}
        record_trainer(trainer, folder / f"{name}.h5", **asked)
        trainer.train(resume_from_checkpoint=goes_on)
        save(folder, name, arguments.process_index, trainer.model)

    fit("padded batches", Regression(), Columns(), gradient_accumulation_steps=2)
    fit("uneven batches", Regression(), Columns(), accelerator_config={"even_batches": False})
    fit("words", Words(), Columns(words=True), gradient_accumulation_steps=2)
    fit("resumed", Regression(), Columns(), epochs=1)
    fit("resumed", Regression(), Columns(), goes_on=True)


def save(folder: Path, name: str, rank: int, net: nn.Module) -> None:
    torch.save([parameter.detach().clone() for parameter in net.parameters()], folder / f"{name}_{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"lightning": with_lightning, "accelerate": with_accelerate, "trainer": with_trainer}[sys.argv[1]](
        Path(sys.argv[2])
    )
