"""Models of transformers as teachers: tiny ones with random weights, saved to a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from afdcd.distill import FeatureTaps
from afdcd.embedded.run import run
from afdcd.embedded.runtime import configure
from afdcd.models.adapters import ADAPTERS, Adapter, ImageSettings, read_source
from afdcd.models.adapters.transformers_model import class_scores
from afdcd.models.weights.read import CheckpointError

from helpers.named_teachers import CLASSES, write_named

PREDICTOR = "sem_seg_head.predictor"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
ID2LABEL = dict(enumerate(CLASSES))


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("transformers", reason="transformers isn't installed")


def write_processor(folder: Path, **content) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({**IMAGENET, **content}))


def segformer_config(library, **more):
    return library.SegformerConfig(
        num_encoder_blocks=4,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=ID2LABEL,
        **more,
    )


@pytest.fixture
def segformer(library, tmp_path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "segformer"
    library.SegformerForSemanticSegmentation(segformer_config(library)).save_pretrained(folder)
    write_processor(folder)
    return folder


def load(name: str, size: tuple[int, int] = (64, 64), **settings) -> Adapter:
    source = read_source(name, **settings)
    kind = ADAPTERS.get(source.kind)
    assert not kind.problems(source)
    made = kind.load(source)
    made.probe(size)
    return made.eval()


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(IMAGENET["image_mean"]).view(3, 1, 1)
    std = torch.tensor(IMAGENET["image_std"]).view(3, 1, 1)
    return (images.flip(1) / 255 - mean) / std  # images are BGR


def test_logits_are_the_librarys_own(library, segformer):
    made = load(f"hf:{segformer}")
    assert made.channels == len(CLASSES)
    own = library.SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96)).float()
    paths = [PREDICTOR, "model.decode_head.linear_fuse"]
    with torch.no_grad(), FeatureTaps(made, paths) as taps:
        outputs = made([{"image": image} for image in images])
    with torch.no_grad():
        expected = own(pixel_values=normalized(images)).logits
    torch.testing.assert_close(taps[PREDICTOR], expected, rtol=1e-4, atol=1e-5)
    assert taps["model.decode_head.linear_fuse"].shape == (2, 16, 16, 24)
    assert outputs[1]["sem_seg"].shape == (len(CLASSES), 64, 96)


def test_as_the_librarys_own_image_processor(library, segformer):
    """Normalization and channel order, where its parts are installed."""
    pytest.importorskip("torchvision", reason="torchvision isn't installed")
    library.SegformerImageProcessor(do_resize=False).save_pretrained(segformer)
    processor = library.AutoImageProcessor.from_pretrained(segformer)
    image = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8)  # RGB
    pixels = processor(images=image.numpy(), return_tensors="pt")["pixel_values"]
    made = load(f"hf:{segformer}")
    with torch.no_grad():
        expected = made.model(pixel_values=pixels).logits
        with FeatureTaps(made, [PREDICTOR]) as taps:
            made([{"image": image.permute(2, 0, 1).flip(0)}])
    torch.testing.assert_close(taps[PREDICTOR], expected, rtol=1e-4, atol=1e-5)


def test_images_that_the_stride_does_not_divide(segformer):
    made = load(f"hf:{segformer}", (40, 72))
    assert made.multiple == 32
    image = torch.rand(3, 40, 72) * 255
    with torch.no_grad(), FeatureTaps(made, [PREDICTOR]) as taps:
        output = made([{"image": image}])[0]["sem_seg"]
    assert taps[PREDICTOR].shape == (1, len(CLASSES), 10, 18)
    assert output.shape == (len(CLASSES), 40, 72)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])),
        (
            {"do_rescale": True, "rescale_factor": 1 / 127.5},
            ("RGB", [61.8375, 58.14, 51.765], None),
        ),
        ({"do_normalize": False}, ("RGB", [0.0] * 3, [255.0] * 3)),
        ({"do_normalize": False, "do_rescale": False}, ("RGB", [0.0] * 3, [1.0] * 3)),
        ({"do_flip_channel_order": True}, ("BGR", [123.675, 116.28, 103.53], None)),
    ],
)
def test_normalization_of_image_processors(tmp_path, content, expected):
    """By hand: in 0..255 mean and deviation are those of 0..1 divided by the rescaling factor."""
    (tmp_path / "config.json").write_text("{}")
    write_processor(tmp_path, **content)
    source = read_source(f"hf:{tmp_path}")
    found = ADAPTERS.get("hf").image_defaults(source)
    order, mean, std = expected
    assert found.format == order
    assert found.mean == pytest.approx(mean)
    assert std is None or found.std == pytest.approx(std)


def test_names_of_classes_are_the_models(tmp_path, segformer):
    kind = ADAPTERS.get("hf")
    assert kind.class_names(read_source(f"hf:{segformer}")) == tuple(CLASSES)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}')
    assert kind.class_names(read_source(f"hf:{tmp_path}")) == ()


def test_class_scores_by_hand():
    """Two queries, two classes and no object."""
    classes = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]).clamp(min=1e-30).log()[None]
    masks = torch.tensor([0.5, 0.2]).logit().view(1, 2, 1, 1)
    # 0.5 * 0.5 + 0 * 0.2, and 0.25 * 0.5 + 1 * 0.2.
    scores = class_scores(classes, masks)
    assert scores.flatten().tolist() == pytest.approx([0.25, 0.325])


def write_tokenizer(folder: Path, library) -> None:
    """One that numbers the words of OneFormer's task from 2 to 5."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: n for n, word in enumerate(["<pad>", "<unk>", "the", "task", "is", "semantic"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(params=["mask2former", "maskformer", "oneformer", "eomt"])
def universal(library, request, tmp_path) -> Path:
    torch.manual_seed(0)
    swin = library.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    if request.param == "mask2former":
        config = library.Mask2FormerConfig(
            backbone_config=swin,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=16,
            num_queries=5,
            id2label=ID2LABEL,
        )
        model = library.Mask2FormerForUniversalSegmentation(config)
    elif request.param == "eomt":
        config = library.EomtConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=64,
            num_queries=5,
            num_blocks=2,
            num_upscale_blocks=1,
            id2label=ID2LABEL,
        )
        model = library.EomtForUniversalSegmentation(config)
    elif request.param == "oneformer":
        config = library.OneFormerConfig(
            backbone_config=swin,
            conv_dim=32,
            mask_dim=32,
            hidden_dim=32,
            num_queries=5,
            encoder_layers=1,
            decoder_layers=2,
            query_dec_layers=1,
            encoder_feedforward_dim=16,
            num_attention_heads=2,
            dim_feedforward=16,
            task_seq_len=8,
            is_training=False,
            id2label=ID2LABEL,
        )
        model = library.OneFormerForUniversalSegmentation(config)
    else:
        detr = library.DetrConfig(
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=5,
            backbone_config=library.ResNetConfig(),
        )
        config = library.MaskFormerConfig(
            backbone_config=swin,
            decoder_config=detr,
            fpn_feature_size=32,
            mask_feature_size=32,
            num_labels=len(CLASSES),
        )
        config.id2label = ID2LABEL
        model = library.MaskFormerForInstanceSegmentation(config)
    folder = tmp_path / request.param
    model.save_pretrained(folder)
    write_processor(folder)
    if request.param == "oneformer":
        write_tokenizer(folder, library)
    return folder


def test_universal_models_give_the_logarithm_of_class_scores(universal):
    made = load(f"hf:{universal}")
    assert made.channels == len(CLASSES)
    image = torch.rand(3, 64, 64) * 255
    with torch.no_grad(), FeatureTaps(made, [PREDICTOR]) as taps:
        made([{"image": image}])
        more = (
            {} if made.task is None else {"task_inputs": torch.tensor([[2, 3, 4, 5, 0, 0, 0, 0]])}
        )
        own = made.model(pixel_values=normalized(image[None]), **more)
    naive = torch.zeros(len(CLASSES), *own.masks_queries_logits.shape[-2:])
    for query in range(5):
        classes = own.class_queries_logits[0, query].softmax(0)[:-1]
        mask = own.masks_queries_logits[0, query].sigmoid()
        for k, probability in enumerate(classes):
            naive[k] += probability * mask
    torch.testing.assert_close(taps[PREDICTOR][0], naive.log(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["upernet", "dpt", "beit", "mobilenet_v2"])
def test_other_architectures(library, tmp_path, kind: str):
    torch.manual_seed(0)
    size = (64, 64)
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "image_size": 64, "patch_size": 16}
    if kind == "upernet":
        backbone = library.ConvNextConfig(
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        config = library.UperNetConfig(
            backbone_config=backbone, hidden_size=16, auxiliary_in_channels=16, id2label=ID2LABEL
        )
        model = library.UperNetForSemanticSegmentation(config)
    elif kind == "dpt":
        config = library.DPTConfig(
            **small,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16,
            id2label=ID2LABEL,
        )
        model = library.DPTForSemanticSegmentation(config)
    elif kind == "beit":
        config = library.BeitConfig(**small, out_indices=[1, 2, 3, 4], id2label=ID2LABEL)
        model = library.BeitForSemanticSegmentation(config)
    else:
        config = library.MobileNetV2Config(depth_multiplier=0.25, id2label=ID2LABEL)
        model = library.MobileNetV2ForSemanticSegmentation(config)
    model.save_pretrained(tmp_path / kind)
    write_processor(tmp_path / kind)
    made = load(f"hf:{tmp_path / kind}", size)
    assert made.channels == len(CLASSES)
    output = made([{"image": torch.rand(3, *size) * 255}])[0]["sem_seg"]
    assert output.shape == (len(CLASSES), *size) and output.isfinite().all()


def test_weights_that_lack_the_head_are_refused(library, tmp_path):
    folder = tmp_path / "encoder"
    library.SegformerModel(segformer_config(library)).save_pretrained(folder)
    write_processor(folder)
    with pytest.raises(CheckpointError, match="is it a model of another task"):
        load(f"hf:{folder}")


def test_models_of_other_tasks_and_damaged_files_are_refused(library, segformer, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    write_processor(folder)
    with pytest.raises(CheckpointError, match="no class of semantic or universal segmentation"):
        load(f"hf:{folder}")
    (segformer / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="can't be loaded by transformers"):
        load(f"hf:{segformer}")


def test_normalization_that_no_file_says_is_asked_for(segformer):
    (segformer / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="PIXEL_MEAN"):
        load(f"hf:{segformer}")
    given = ImageSettings(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    assert load(f"hf:{segformer}", images=given).pixel_mean.flatten().tolist() == [3.0, 2.0, 1.0]


def test_a_run_with_its_own_names_and_record(segformer, configs, tmp_path, caplog):
    """A transformer into a CNN: logits, features, and Af-DCD on components."""
    losses = {
        "logit_kd": {"NAME": "logit_kd"},
        "features": {
            "NAME": "feature_kd",
            "TAPS": [["backbone.res4", "model.segformer.stages.0.patch_embeddings.proj"]],
        },
        "context": {
            "NAME": "afdcd",
            "TAPS": [["backbone.res5", "model.decode_head.linear_fuse"]],
            "POOL": 0,
            "PATCH": [2, 2],
            "GROUPS": 8,
            "DIMS": 8,
        },
    }
    config = write_named(configs, f"hf:{segformer}", losses=losses)
    record = [
        *("MODEL.DISTILLER.TEACHER.RECORD.FOLDER", str(tmp_path / "record")),
        *("MODEL.DISTILLER.TEACHER.RECORD.VIEWS", "1"),
    ]
    with caplog.at_level("INFO"):
        run(configure(str(config), ["OUTPUT_DIR", str(tmp_path / "one"), *record]))
    assert "Sign_Symbol" in caplog.text and "has no class Pavement" in caplog.text
    flags = ["--runtime", "embedded", "--config-file", str(config)]
    from afdcd.cli.record_teacher import main as record_teacher

    assert record_teacher([*flags, *record]) == 0
    # A complete record takes no weights, only the small files.
    (segformer / "model.safetensors").unlink()
    run(configure(str(config), ["OUTPUT_DIR", str(tmp_path / "two"), *record]))
    one, two = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("one", "two")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
