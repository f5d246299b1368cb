"""The configuration keys that AfDCD adds to Detectron2's."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_afdcd_config(cfg: CfgNode) -> None:
    """Add AfDCD's keys, with their defaults, to a Detectron2 config (or the embedded runtime's).

    Keys that Detectron2's DeepLab project shares are left as they are where it was added before.
    """
    node = type(cfg)
    model, head = cfg.MODEL, cfg.MODEL.SEM_SEG_HEAD

    # --- Python code of your own (docs/extending.md) ------------------------------------------
    # Modules (my_package.my_losses) and .py files that are imported before anything is checked or
    # built, in every process; a relative file is looked for beside the YAML file that names it. A
    # config imports what its _BASE_ files name, then its own, and KEY VALUE adds to both: an import
    # can't be taken back. A module's function add_config(cfg) may add keys, before they are read.
    cfg.IMPORTS = []

    # --- Networks ---------------------------------------------------------------------------
    # Stride of res5: 8 (published), 16 or 32.
    model.BACKBONE.OUTPUT_STRIDE = 8
    # "deeplab": three 3x3 convolutions (published); "basic": one 7x7 (ImageNet weights of
    # torchvision and timm).
    model.RESNETS.setdefault("STEM_TYPE", "deeplab")
    # Of MobileNetV2: the factor of its channels, and what is read from it.
    model.MOBILENETV2 = node()
    model.MOBILENETV2.WIDTH_MULT = 1.0
    model.MOBILENETV2.NORM = "BN"
    model.MOBILENETV2.OUT_FEATURES = ["res5"]
    # SegFormer's backbone: "b0" to "b5".
    model.MIT = node()
    model.MIT.VARIANT = "b0"
    # Channels (multiples of 1, 2, 5, 8) and blocks of res2 to res5; the variant's when empty.
    model.MIT.WIDTHS = []
    model.MIT.DEPTHS = []
    # Stochastic depth: share of the images that the last block's branches are left out of, in
    # training; 0 in the first block.
    model.MIT.DROP_PATH = 0.1
    # Of the blocks' and stages' LayerNorm; 1e-5 for the very numbers of transformers.
    model.MIT.NORM_EPS = 1e-6
    model.MIT.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # MLPHead: whether NORM and ReLU follow each stage's projection, as in mmsegmentation.
    head.MLP_NORM = False
    # MobileNetV3 and EfficientNet-Lite.
    model.MOBILENETV3 = node()
    model.MOBILENETV3.SIZE = "large"  # or "small"
    model.MOBILENETV3.WIDTH_MULT = 1.0
    model.MOBILENETV3.NORM = "BN"
    # Also "res3.0", the output of res3's first block, which LR-ASPP takes.
    model.MOBILENETV3.OUT_FEATURES = ["res5"]
    model.EFFICIENTNET_LITE = node()
    model.EFFICIENTNET_LITE.VARIANT = 0  # to 4
    # Beside the variant's own factor.
    model.EFFICIENTNET_LITE.WIDTH_MULT = 1.0
    model.EFFICIENTNET_LITE.NORM = "BN"
    model.EFFICIENTNET_LITE.OUT_FEATURES = ["res5"]
    # Of a backbone timm:NAME (docs/weights.md): whether timm fetches its weights. It doesn't where
    # MODEL.WEIGHTS is set.
    model.TIMM = node({"PRETRAINED": False})
    # Weight of the auxiliary head's loss; 0 builds none. 0.4 for the published ResNets.
    head.AUX_WEIGHT = 0.0
    head.AUX_IN_FEATURE = "res4"
    # Dropout before the classifier.
    head.DROPOUT = 0.1
    # Dilations and dropout of DeepLabV3's pyramid; published: 12, 24, 36 and 0.5. (These and the
    # other defaults set by setdefault are those of Detectron2's DeepLab project, which has the
    # same keys.)
    head.setdefault("ASPP_DILATIONS", [6, 12, 18])
    head.setdefault("ASPP_DROPOUT", 0.1)

    # --- Distillation (MODEL.META_ARCHITECTURE: Distiller) ------------------------------------
    distiller = model.DISTILLER = node()
    # Meta-architecture of the student; the rest of MODEL describes it.
    distiller.STUDENT = "SemanticSegmentor"
    # The teacher is another config, with its weights and KEY VALUE overrides. A relative
    # CONFIG_FILE is looked for beside the config that names it.
    distiller.TEACHER = node()
    distiller.TEACHER.CONFIG_FILE = ""
    distiller.TEACHER.WEIGHTS = ""
    distiller.TEACHER.OPTS = []
    # Or it is a model of other people's (docs/teachers.md): "hf:folder" or "hf:ORG/NAME" of
    # transformers; "smp:folder" or, with WEIGHTS, "smp:ARCH/ENCODER" of
    # segmentation_models_pytorch; "file.pt2" of torch.export; "file.pt", "file.ts" of TorchScript;
    # "package.module:function" or "file.py:function". Relative paths start from the working
    # directory, as in WEIGHTS.
    distiller.TEACHER.NAME = ""
    # How a teacher of NAME takes its images. Empty: as its own files say, else RGB with ImageNet's
    # mean and deviation (in 0..255, in FORMAT's order), whole, and padded as its kind needs.
    images = distiller.TEACHER.IMAGES = node()
    images.FORMAT = ""  # "RGB" or "BGR"
    images.PIXEL_MEAN = []
    images.PIXEL_STD = []
    images.MULTIPLE = 0  # they are padded to multiples of this many pixels; 1 for no padding
    images.SIZE = []  # [height, width] that they are resized to, for models that take one size only
    # Pixels of its images for each position of its logits: finer ones, as of a model that enlarges
    # its logits to the image's size (smp's do), are averaged down; 0 for as it gives them.
    distiller.TEACHER.LOGITS_STRIDE = 0
    # The teacher's classes: names in its channels' order, [a text file with a name a line], or [a
    # data set's name]. Empty: as its own files or its training set say.
    distiller.TEACHER.CLASSES = []
    # {teacher's name: student's name} of classes whose names differ; null for no partner.
    distiller.TEACHER.CLASS_MAP = []
    # Whether losses of logits compare classes by name rather than channel by channel: always where
    # NAME, CLASSES or CLASS_MAP is set.
    distiller.TEACHER.MATCH_CLASSES = False
    # Of its convolutions: "float32", "bfloat16" or "float16"; "" for SOLVER.AMP's.
    distiller.TEACHER.DTYPE = ""
    # What it sees, in times the student's resolution, rendered from the files: 3 for a student at
    # 160x120 (INPUT.MIN_SIZE_TRAIN) and a teacher at 480x360. Its feature maps are averaged down to
    # the student's grid, its logits stay as they are. It costs nothing once the teacher is
    # recorded.
    distiller.TEACHER.RESOLUTION = 1.0
    # Its logits are averaged over these scales of its images, over mirrored images too, and over
    # those of other teachers: [config file, weights] each. Other taps are the first teacher's.
    distiller.TEACHER.SCALES = [1.0]
    distiller.TEACHER.FLIP = False
    distiller.TEACHER.OTHERS = []
    # The recorded teacher: what losses compare with is stored for VIEWS augmented views of each
    # training image, and a sample shows one of them (docs/recording.md). What is missing is
    # recorded as it goes; a complete record trains without the teacher.
    record = distiller.TEACHER.RECORD = node()
    record.FOLDER = ""  # none when empty
    record.VIEWS = 16
    record.DTYPE = "int8"  # of feature maps: "int8" or "float16"; logits are in float16
    # Of logits, the likeliest classes that are stored one by one; 0 for all.
    record.TOP_CLASSES = 0
    # Of the views: runs share a record, whatever their own seed.
    record.SEED = 0
    # The losses, by labels of one's own choice, in the order that they draw random numbers in:
    #
    #     logits: {NAME: logit_kd, WEIGHT: 0.5, TEMPERATURE: 2.0}
    #     context: {NAME: afdcd, TAPS: [[backbone.res5, backbone.res5]], CONTRAST_WEIGHT: 0.01}
    #     afdcd: null
    #
    # NAME: of the loss in `afdcd.losses.LOSSES`; may be left out where the label is that name.
    # TAPS: pairs of [student's module path, teacher's module path], several for an FPN; for the
    #   losses of this package their own where left out (res5, or the logits). A module that gives
    #   tokens [N, L, C] (a transformer's block or LayerNorm) counts as the map that they lie on,
    #   without class and register tokens: see `afdcd.distill.tokens`.
    # DIMS: principal components of the teacher's map that the loss compares with; 0 for the map
    #   itself, as published. See `AfDCDLoss` and `afdcd.distill.components`.
    # SCHEDULE: {START: 0.0, END: 1.0, EVERY: 1, FADE: 0.0}: the part of the run that it is used in.
    #   START and END are shares of the steps; every EVERY-th step; over the last FADE (a share of
    #   the run) its weight falls to 0. In other steps the teacher isn't run.
    # WEIGHT: factor of all of the loss's terms, 1.0 where left out; or one for each pair of TAPS.
    # <TERM>_WEIGHT: weight of a single term: LOGIT_KD_WEIGHT of logit_kd; RECONSTRUCTION_WEIGHT and
    #   CONTRAST_WEIGHT of afdcd.
    # Everything else: the loss's settings, that is its constructor's arguments in upper case:
    #   afdcd MASK, MASK_RATIO, PROJECTOR, KIND, GROUPS, PATCH, POOL, TEMPERATURE, DISTANCE,
    #   REDUCTION, KERNEL, MASKED_CONV (`AfDCDLoss` describes them); those of the others are in
    #   docs/losses.md.
    #
    # A config merges over its _BASE_ label by label and key by key. Null switches a label off.
    distiller.LOSSES = node(new_allowed=True)
    # The gradients of align and projector are clipped to this L2 norm, alone; 0 for not at all.
    distiller.CLIP_GRADIENTS = 15.0
    # Learning rate of align and projector, in times the student's.
    distiller.LR_FACTOR = 1.0
    # Which images of a batch are compared with the teacher: "all", or "unlabeled", where
    # DATASETS.UNLABELED names some; the labelled ones are then left to the labels.
    distiller.IMAGES = "all"

    # --- Data -------------------------------------------------------------------------------
    # Images whose labels are never opened, on which the teacher alone teaches: data sets or
    # descriptions as in TRAIN, or folders of images (docs/unlabeled.md). TRAIN may then be empty.
    cfg.DATASETS.UNLABELED = ()
    # Share of each batch that they are, where TRAIN isn't empty.
    cfg.DATASETS.UNLABELED_SHARE = 0.5
    # "scale_crop": the paper's mapper, for semantic segmentation. "detectron2": Detectron2's own
    # mapper, augmentation and evaluators, for other tasks. Or the name of a mapper that a module of
    # IMPORTS has registered in `afdcd.d2.MAPPERS`.
    cfg.INPUT.MAPPER = "scale_crop"
    # The paper's mapper: random scale, crop and flip.
    crop = cfg.INPUT.SCALE_CROP = node()
    crop.SIZE = [512, 1024]  # height, width
    crop.SCALES = [0.5, 2.0]  # smallest and largest factor
    crop.SCALE_STEP = 0.1
    # Megabytes of read files that each loader process keeps in memory.
    cfg.DATALOADER.CACHE_MB = 0
    # Folder where training files are kept decoded (Cityscapes: 25 GB), so that only crops are read
    # of them after the first time; none when empty.
    cfg.DATALOADER.CACHE_DIR = ""
    # How many iterations in a row use each loaded batch, with new masks each time: for loaders that
    # can't keep up.
    cfg.DATALOADER.ECHO = 1

    # Scales whose logits are averaged in evaluation, and whether mirrored images join them.
    cfg.TEST.SCALES = [1.0]
    cfg.TEST.FLIP = False
    # [height, width] of sliding windows, and their [rows, columns] apart (two thirds of the window
    # when empty); whole images when empty.
    cfg.TEST.WINDOW = []
    cfg.TEST.WINDOW_STRIDE = []
    # Whether evaluation draws the confusion matrix into OUTPUT_DIR (PNG), with its counts (CSV).
    cfg.TEST.CONFUSION = False

    # --- Training ---------------------------------------------------------------------------
    # WarmupPolyLR, as in Detectron2's DeepLab project.
    cfg.SOLVER.setdefault("POLY_LR_POWER", 0.9)
    cfg.SOLVER.setdefault("POLY_LR_CONSTANT_ENDING", 0.0)
    # "SGD" or "ADAMW", whose MOMENTUM isn't used; in Mask2Former's words, as the next.
    cfg.SOLVER.setdefault("OPTIMIZER", "SGD")
    # Learning rate of the model's backbone, in times the others'.
    cfg.SOLVER.setdefault("BACKBONE_MULTIPLIER", 1.0)
    # "float16" or "bfloat16", where SOLVER.AMP.ENABLED.
    cfg.SOLVER.AMP.setdefault("DTYPE", "float16")
    # IMS_PER_BATCH is worked on in so many parts, one after the other, whose gradients are
    # averaged: less memory, the same masks (docs/performance.md).
    cfg.SOLVER.ACCUMULATE = 1
    # Whether the student's BatchNorm is synchronised where several GPUs train it, as published.
    model.SYNC_BN = True
    # Newest checkpoints to keep; the best and the last one are kept beside them.
    cfg.SOLVER.CHECKPOINTS_KEPT = 2
