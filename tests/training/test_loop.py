import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsss.errors import CollapseError, RecipeError, StageError
from wsss.training import loop
from wsss.training.checkpoint import load_state
from wsss.training.journal import read_journal
from wsss.training.loop import train
from wsss.training.seeding import derived_seed, seed_everything
from wsss.types import Batch

sys.path.insert(0, str(Path(__file__).parent))
from tiny import TinyBatches, TinyNet, config, train_share


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Interrupted(Exception):  # noqa: N818
    pass


def stop_at(step):
    """A progress callback that behaves like a power cut after `step`."""

    def progress(done, total, note):
        if done >= step:
            raise Interrupted

    return progress


def trained(folder, net=None, **settings):
    net = net or TinyNet()
    result = train(net, TinyBatches(), config(**settings), work_dir=folder, seed=7)
    return net, result


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# What the optimiser does


def test_one_run_equals_a_plain_loop_written_by_hand(tmp_path):
    net, _ = trained(tmp_path, TinyNet(dropout=0.0), steps=7, epochs=None, weight_decay=0.01)
    reference = TinyNet(dropout=0.0).train()
    groups = reference.parameter_groups(0.05)
    buffers: dict[nn.Parameter, torch.Tensor] = {}
    seed_everything(derived_seed(7, "training", 0))
    batches = [batch for epoch in range(2) for batch in _quiet(TinyBatches(), epoch)][:7]
    for step, batch in enumerate(batches):
        reference.zero_grad()
        sum(reference.losses(batch).values()).backward()
        for group in groups:
            lr = group["lr"] * (1 - step / 7) ** 0.9
            for p in group["params"]:
                grad = p.grad + group.get("weight_decay", 0.01) * p.detach()
                buffers[p] = grad if p not in buffers else 0.9 * buffers[p] + grad
                p.data -= lr * buffers[p]
    for (name, value), expected in zip(
        net.state_dict().items(), reference.state_dict().values(), strict=True
    ):
        assert torch.allclose(value, expected, rtol=1e-5, atol=1e-6), name


def _quiet(batches, epoch):
    state = torch.get_rng_state()
    drawn = list(batches.epoch(epoch))
    torch.set_rng_state(state)
    return drawn


def test_accumulated_batches_equal_one_larger_batch(tmp_path):
    class Halves(TinyBatches):
        def __init__(self):
            super().__init__(steps=10)

        def epoch(self, epoch, first_step=0):
            for whole in TinyBatches(size=8).epoch(epoch):
                for part in (slice(0, 4), slice(4, 8)):
                    yield Batch(
                        whole.images[part], whole.image_labels[part], whole.image_ids[part], whole.valid[part]
                    )

    first, second = (TinyNet(batch_norm=False, dropout=0.0, noise=0.0) for _ in range(2))
    train(first, TinyBatches(size=8), config(), work_dir=tmp_path / "large", seed=0)
    result = train(second, Halves(), config(accumulate=2), work_dir=tmp_path / "accumulated", seed=0)
    assert result.steps == 20
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_groups_keep_their_ratio_and_the_schedule_holds(tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a, **k: (rates.append([g["lr"] for g in self.param_groups]), step(self)),
    )
    trained(tmp_path, steps=6, epochs=None, schedule_hold=2)
    expected = [0.05 * (1 - t / 6) ** 0.9 for t in (0, 0, 2, 2, 4, 4)]
    assert [r[0] for r in rates] == pytest.approx(expected)
    assert [r[2] for r in rates] == pytest.approx([10 * r for r in expected])


def test_adamw_bfloat16_clipping_and_channels_last_train(tmp_path):
    _, result = trained(
        tmp_path,
        optimizer="adamw",
        learning_rate=0.01,
        precision="bfloat16",
        clip_norm=0.5,
        channels_last=True,
        schedule="cosine",
        epochs=10,
    )
    lines = read_journal(tmp_path / "log.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"]
    state, _ = load_state(tmp_path / "model.safetensors")
    assert all(value.is_contiguous() and value.dtype != torch.bfloat16 for value in state.values())
    assert result.final_losses.keys() == {"classification", "area"}


def test_gradients_are_clipped_to_their_norm(tmp_path):
    net = TinyNet(dropout=0.0, batch_norm=False)
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    net.parameter_groups = lambda lr: [{"params": list(net.parameters()), "lr": lr}]
    trained(tmp_path, net, steps=1, epochs=None, clip_norm=1e-3, learning_rate=1.0, weight_decay=0.0)
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_the_network_trains_in_its_own_training_mode(tmp_path):
    class Frozen(TinyNet):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    net, _ = trained(tmp_path, Frozen().eval())
    assert net.drop.training
    assert not net.norm.training
    assert int(net.norm.num_batches_tracked) == 0


def test_a_batch_without_any_loss_trains_on(tmp_path):
    class Silent(TinyNet):
        def losses(self, batch):
            return {"constant": torch.zeros(())}

    net, result = trained(tmp_path, Silent(batch_norm=False), weight_decay=0.0)
    assert result.final_losses["constant"] == 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.parameters(), TinyNet(batch_norm=False).parameters(), strict=True)
    )


# Interruptions


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)  # what was drawn before must not matter
        train(TinyNet(), TinyBatches(), config(), work_dir=tmp_path / name, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [1, 5, 13])
def test_a_resumed_training_gives_the_same_bytes_and_log(tmp_path, step, optimizer):
    settings = config(optimizer=optimizer, learning_rate=0.01, checkpoint_seconds=0, channels_last=True)
    whole = train(TinyNet(), TinyBatches(), settings, work_dir=tmp_path / "whole", seed=7)
    often = config(**{**settings.model_dump(), "log_every": 1})
    with pytest.raises(Interrupted):
        train(TinyNet(), TinyBatches(), often, work_dir=tmp_path / "cut", seed=7, progress=stop_at(step + 1))
    assert load_state(tmp_path / "cut/checkpoint.safetensors")[1]["step"] == str(step)
    net = TinyNet()
    resumed = train(net, TinyBatches(), settings, work_dir=tmp_path / "cut", seed=7)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed.final_losses == whole.final_losses
    assert net.seen[0] == (f"{step // 5}-{step % 5}-0", *net.seen[0][1:])  # the very next batch
    steps = [line["step"] for line in read_journal(tmp_path / "cut/log.jsonl")]
    assert steps == sorted(set(steps))
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["log.jsonl", "model.safetensors"]


def test_a_finished_training_returns_at_once_with_its_weights(tmp_path):
    first, result = trained(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"killed before this was removed")
    again, second = trained(tmp_path)
    assert again.seen == []
    assert second.final_losses == result.final_losses
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_settings_without_effect_may_change_and_others_may_not(tmp_path):
    with pytest.raises(Interrupted):
        train(
            TinyNet(),
            TinyBatches(),
            config(checkpoint_seconds=0, log_every=1),
            work_dir=tmp_path,
            seed=7,
            progress=stop_at(3),
        )
    with pytest.raises(StageError, match="other settings"):
        trained(tmp_path, learning_rate=0.1)
    with pytest.raises(StageError, match="another network"):
        trained(tmp_path, TinyNet(batch_norm=False))
    trained(tmp_path, log_every=2, checkpoint_seconds=100)
    with pytest.raises(StageError, match="another seed"):
        train(TinyNet(), TinyBatches(), config(), work_dir=tmp_path, seed=8)


def _kill_when(job, folder, lines):
    """SIGKILL the job's process once its log has so many lines."""
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and job.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            time.sleep(random.random() * 0.05)
            break
        time.sleep(0.005)
    job.kill()
    job.wait()


def test_a_killed_process_and_the_same_call_again_give_the_same_bytes(tmp_path):
    script = [
        sys.executable,
        str(Path(__file__).with_name("tiny.py")),
        str(tmp_path / "killed"),
        "--pause",
        "0.04",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen(script, env=environment)
    _kill_when(job, tmp_path / "killed", random.randint(1, 15))
    assert not (tmp_path / "killed/model.safetensors").exists()
    for name in ("killed", "whole"):
        train(TinyNet(), TinyBatches(), config(log_every=1), work_dir=tmp_path / name, seed=0)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert [line["step"] for line in read_journal(tmp_path / "killed/log.jsonl")] == list(range(1, 21))


# Collapse


class Bursting(TinyNet):
    """Its `area` becomes NaN at one step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def losses(self, batch):
        losses = super().losses(batch)
        return losses | {"area": losses["area"] * (float("nan") if len(self.seen) == self.step else 1)}


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path):
    net = Bursting(8)
    with pytest.raises(
        CollapseError, match=r"`area` is not finite at step 8 of 20.*checkpoint.safetensors of step 7"
    ):
        train(net, TinyBatches(), config(checkpoint_seconds=0), work_dir=tmp_path, seed=0)
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    assert not (tmp_path / "model.safetensors").exists()


def test_without_a_checkpoint_the_error_says_so(tmp_path):
    with pytest.raises(CollapseError, match=r"step 1 of 20\. No checkpoint was written before"):
        train(Bursting(1), TinyBatches(), config(), work_dir=tmp_path, seed=0)


def test_where_losses_are_read_at_intervals_only_no_spoilt_checkpoint_is_written(tmp_path, monkeypatch):
    finite = torch.isfinite
    # as on an accelerator: the check of every step does not happen
    monkeypatch.setattr(loop.torch, "isfinite", lambda v: torch.tensor(True) if v.ndim == 0 else finite(v))
    with pytest.raises(CollapseError, match=r"`area` is not finite.*of step 5"):
        train(Bursting(6), TinyBatches(), config(checkpoint_seconds=0), work_dir=tmp_path, seed=0)
    monkeypatch.undo()
    tensors, metadata = load_state(tmp_path / "checkpoint.safetensors")
    assert metadata["step"] == "5"
    assert all(bool(value.isfinite().all()) for name, value in tensors.items() if name.startswith("model."))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Spoilt(TinyNet):
        def losses(self, batch):
            losses = super().losses(batch)
            if len(self.seen) == 20:
                self.norm.running_var = torch.full((6,), float("inf"))
            return losses

    with pytest.raises(CollapseError, match=r"`norm\.running_var` are not finite"):
        trained(tmp_path, Spoilt())
    assert not (tmp_path / "model.safetensors").exists()


def test_the_alarm_is_asked_every_interval_and_stops_the_training(tmp_path):
    asked = []

    def alarm(step):
        asked.append(step)
        torch.rand(1)
        return "The maps are background everywhere." if step == 12 else None

    with pytest.raises(CollapseError, match="The maps are background everywhere at step 12 of 20"):
        train(TinyNet(), TinyBatches(), config(), work_dir=tmp_path / "a", seed=0, alarm=alarm)
    assert asked == [4, 8, 12]


def test_an_alarm_may_switch_modes_and_draw_numbers_without_effect(tmp_path):
    net = TinyNet()

    def alarm(step):
        net.eval()
        torch.rand(5)

    train(net, TinyBatches(), config(), work_dir=tmp_path / "asked", seed=0, alarm=alarm)
    train(TinyNet(), TinyBatches(), config(), work_dir=tmp_path / "plain", seed=0)
    assert weights(tmp_path / "asked") == weights(tmp_path / "plain")


# Log, progress, mistakes


def test_the_log_says_step_rate_losses_speed_and_time(tmp_path):
    notes = []
    train(
        TinyNet(),
        TinyBatches(),
        config(log_every=8),
        work_dir=tmp_path,
        seed=0,
        progress=lambda *args: notes.append(args),
    )
    lines = read_journal(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [8, 16, 20]
    line = lines[1]
    assert line["lr"] == pytest.approx(0.05 * (1 - 15 / 20) ** 0.9)
    assert line["loss"] == pytest.approx(sum(line["losses"].values()))
    assert line.keys() >= {"images_per_second", "seconds", "seconds_left", "epoch", "steps"}
    assert [(done, total) for done, total, _ in notes] == [(0, 20), (8, 20), (16, 20), (20, 20)]
    assert "images/s" in notes[-1][2]


def test_tensorboard_is_written_on_request_and_named_when_missing(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    trained(tmp_path / "with", tensorboard=True)
    assert list((tmp_path / "with/tensorboard").iterdir())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(StageError, match=r"pip install .wsss\[tensorboard\]"):
        trained(tmp_path / "without", tensorboard=True)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(StageError, match=r"nn\.Module"):
        train(object(), TinyBatches(), config(), work_dir=tmp_path, seed=0)
    net = TinyNet()
    net.parameter_groups = lambda lr: [{"params": [], "lr": lr}]
    with pytest.raises(RecipeError, match="no parameter"):
        trained(tmp_path, net)
    with pytest.raises(StageError, match="at least one batch"):
        train(TinyNet(), TinyBatches(steps=0), config(), work_dir=tmp_path, seed=0)


def test_batches_that_end_early_are_an_error(tmp_path):
    class Short(TinyBatches):
        def epoch(self, epoch, first_step=0):
            yield next(super().epoch(epoch, first_step))

    with pytest.raises(StageError, match="ended after 1 of 5"):
        train(TinyNet(), Short(), config(), work_dir=tmp_path, seed=0)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    script = str(Path(__file__).with_name("tiny.py"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    subprocess.run(
        [*launch, str(tmp_path / "2")], env=environment, check=True, capture_output=True, timeout=300
    )
    train_share(tmp_path / "1", 0, 1)
    one, two = (load_state(tmp_path / f"{n}/model.safetensors")[0] for n in (1, 2))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name
    logs = [read_journal(tmp_path / f"{n}/log.jsonl") for n in (1, 2)]
    assert [line["loss"] for line in logs[0]] == pytest.approx([line["loss"] for line in logs[1]], rel=1e-4)
    assert sorted(p.name for p in (tmp_path / "2").iterdir()) == ["log.jsonl", "model.safetensors"]


def test_constants_outside_the_state_are_not_sent_between_processes():
    module = TinyNet()
    module.register_buffer("table", torch.zeros(3), persistent=False)
    module.register_buffer("kept", torch.zeros(3))
    assert loop._Losses(module)._ddp_params_and_buffers_to_ignore == ["trainable.table"]


def test_constants_where_others_wait_for_a_backward_pass_are_an_error():
    class Silent(TinyNet):
        def losses(self, batch):
            return {"constant": torch.zeros(())}

    module = Silent()
    assert "no_loss" in loop._Losses(module)(None)
    loop.synchronise_batch_norms(module)  # as in a run of several processes
    with pytest.raises(StageError, match=r"need a gradient in every batch.* Return `0 \* maps\.sum\(\)`"):
        loop._Losses(module)(None)
    module.norm.eval()  # frozen norms wait for nobody
    assert "no_loss" in loop._Losses(module)(None)
