"""MobileNetV3, LR-ASPP and EfficientNet-Lite as students."""

from __future__ import annotations

import pytest

from helpers.small_networks import NETWORKS, check_whole_run, write_network


@pytest.mark.parametrize("name", ["network", "network_distilled"])
@pytest.mark.parametrize("network", NETWORKS)
def test_trains_resumes_evaluates_and_predicts(configs, tmp_path, network: str, name: str):
    write_network(configs, NETWORKS[network])
    check_whole_run(configs, tmp_path, "embedded", name)
