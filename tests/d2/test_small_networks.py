"""Networks for small devices in Detectron2's runtime, as in the embedded one."""

from __future__ import annotations

import pytest

pytest.importorskip("detectron2")

from helpers.d2_runs import assert_same_tensors, checkpoint, train_detectron2, train_embedded
from helpers.small_networks import NETWORKS, check_whole_run, write_network


@pytest.mark.parametrize("network", NETWORKS)
def test_trains_resumes_evaluates_and_predicts(configs, tmp_path, network: str):
    write_network(configs, NETWORKS[network])
    check_whole_run(configs, tmp_path, "detectron2", "network_distilled")


@pytest.mark.parametrize("network", NETWORKS)
def test_both_runtimes_train_the_same(configs, tmp_path, network: str):
    write_network(configs, NETWORKS[network])
    config = configs / "network_distilled.yaml"
    train_embedded(config, tmp_path / "a")
    train_detectron2(config, tmp_path / "b")
    for part in ("model", "distiller"):
        assert_same_tensors(checkpoint(tmp_path / "a")[part], checkpoint(tmp_path / "b")[part])


def test_the_eps_survives_detectron2s_normalizations(configs):
    from afdcd.d2.config import configure
    from afdcd.d2.modeling import build_student

    write_network(configs, NETWORKS["deeplabv3_effnet_lite1"])
    for norm in ("BN", "FrozenBN", "naiveSyncBN"):
        words = ["MODEL.EFFICIENTNET_LITE.NORM", norm]
        model = build_student(configure(str(configs / "network.yaml"), words))
        norms = [m for m in model.backbone.modules() if hasattr(m, "running_var")]
        assert norms and {m.eps for m in norms} == {1e-3}
