"""Which checkpoints a run keeps, which is the last, and what can't be resumed from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afdcd.checks.output import lost_run_problems, occupied_problems
from afdcd.config import embedded_config
from afdcd.engine.checkpoints import Checkpoints, result_weights
from afdcd.models.weights import CheckpointError


def content(iteration: int) -> dict:
    return {
        "model": {"weight": torch.full((2,), float(iteration))},
        "optimizer": {},
        "iteration": iteration,
        "seed": 1,
        "progress": {},
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_and_pointed_to(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=2)
    assert checkpoints.last() is None
    for iteration in (2, 5, 8):
        path = checkpoints.save(content(iteration))
        assert checkpoints.last() == path == tmp_path / f"model_{iteration:07d}.pth"
        assert checkpoints.read_last()["model"]["weight"].tolist() == [iteration] * 2
    assert names(tmp_path) == ["last_checkpoint", "model_0000005.pth", "model_0000008.pth"]


def test_the_last_is_kept_beside_the_numbered_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=0)  # at least one
    for iteration in (2, 5):
        checkpoints.save(content(iteration))
    assert checkpoints.save(content(9), final=True) == tmp_path / "model_final.pth"
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert names(tmp_path) == ["last_checkpoint", "model_0000005.pth", "model_final.pth"]


@pytest.mark.parametrize("pointer", [None, "", "model_0000099.pth", "\xff\xfe"])
@pytest.mark.parametrize("final", [False, True])
def test_a_lost_pointer_loses_no_run(tmp_path, pointer: str | None, final: bool, caplog):
    checkpoints = Checkpoints(tmp_path)
    for iteration in (2, 5):
        checkpoints.save(content(iteration))
    if final:
        checkpoints.save(content(8), final=True)
    (tmp_path / "last_checkpoint").unlink()
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_bytes(pointer.encode("latin-1"))
    name = "model_final.pth" if final else "model_0000005.pth"
    assert checkpoints.read_last()["iteration"] == (8 if final else 5)
    assert f"taking {name} for the last checkpoint" in caplog.text
    (problem,) = occupied_problems(checkpoints)
    assert "already holds a run" in problem and name in problem
    assert lost_run_problems(checkpoints) == []  # it can be resumed


def test_weights_alone_are_not_overwritten(tmp_path):
    (tmp_path / "student_final.pth").write_bytes(b"weights")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.last() is None
    for problems in (occupied_problems(checkpoints), lost_run_problems(checkpoints)):
        (problem,) = problems
        assert "student_final.pth" in problem and "no checkpoint to resume from" in problem


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(content(2))

    def fail(value, file, **flags) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", fail)
        checkpoints.save(content(5))
    assert checkpoints.read_last()["iteration"] == 2
    assert not (tmp_path / "model_0000005.pth").exists()
    # What a killed run has left is removed by the next one.
    (tmp_path / ".model_0000005.pth.unfinished").write_bytes(b"half")
    checkpoints.save(content(8))
    assert names(tmp_path) == ["last_checkpoint", "model_0000002.pth", "model_0000008.pth"]


def test_a_broken_checkpoint_names_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume from"):
        checkpoints.read_last()
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(
        CheckpointError,
        match=r"names model_0000009.*without --resume",
    ):
        checkpoints.read_last()
    checkpoints.save(content(2)).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no older one in its folder"):
        checkpoints.read_last()
    checkpoints.save(content(5))
    checkpoints.save(content(8), final=True).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"write model_0000005\.pth into .*last_checkpoint"):
        checkpoints.read_last()


@pytest.mark.parametrize("missing", ["optimizer", "seed", "progress"])
def test_what_a_resume_needs(tmp_path, missing: str):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({key: value for key, value in content(2).items() if key != missing})
    with pytest.raises(CheckpointError, match=f"can't be resumed from: it has no {missing}"):
        checkpoints.read_last()


def test_the_command_line_comes_before_the_runs_result_before_the_config_file(tmp_path):
    cfg = embedded_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    assert result_weights(cfg, named=False).path == ""
    cfg.MODEL.WEIGHTS = "given.pth"
    chosen = result_weights(cfg, named=False)
    assert chosen.path == "given.pth" and "holds no model_final.pth" in str(chosen)
    for name in ("model_best.pth", "model_final.pth"):  # the later one is preferred
        (tmp_path / name).write_bytes(b"")
        chosen = result_weights(cfg, named=False)
        assert chosen.path == str(tmp_path / name) and "the run's own result" in str(chosen)
    chosen = result_weights(cfg, named=True)
    assert chosen.path == "given.pth" and "MODEL.WEIGHTS on the command line" in str(chosen)
