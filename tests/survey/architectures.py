"""Architectures that nobody here wrote, as small as they go, each with a batch of six samples in float64.

``ARCHITECTURES[name]`` builds a model and the keyword arguments or positional inputs of one call. The packages are the
optional group ``survey``; an architecture whose package is missing is skipped by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 6
TOKENS = 7
VOCABULARY = 40


@dataclass(frozen=True)
class Architecture:
    """One foreign model.

    Attributes:
        name: its package and name.
        package: what has to be installed.
        build: builds it with the inputs of one call.
        fast: whether it is among the sample that the fast tests take.
        tolerance: the largest error that is float64 rounding, of the largest singular value of any group.
    """

    name: str
    package: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]
    fast: bool = False
    tolerance: float = 1e-9


ARCHITECTURES: dict[str, Architecture] = {}


IN_FLOAT32 = {"transformers/mamba": 1e-6}
"""Models that compute a part of theirs in float32 whatever they are given, and the rounding of that."""


def _add(name: str, package: str, build: Callable[[], Any], fast: bool = False) -> None:
    ARCHITECTURES[name] = Architecture(name, package, build, fast, IN_FLOAT32.get(name, 1e-9))


# --- Transformers: every model from its configuration, none from the hub -----------------------------------------

_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def _transformer(
    model: str, config: str, inputs: Callable[[], dict[str, Tensor]], **settings: Any
) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        transformers = import_module("transformers")
        configuration = getattr(transformers, config)(**settings)
        configuration._attn_implementation = "eager"
        configuration._experts_implementation = "eager"  # the grouped product of experts knows no float64
        return getattr(transformers, model)(configuration), (), inputs()

    return build


def _tokens() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, VOCABULARY, (SAMPLES, TOKENS))}


def _images(size: int = 16, channels: int = 3) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"pixel_values": torch.randn(SAMPLES, channels, size, size)}


def _encoder_decoder() -> dict[str, Tensor]:
    return {**_tokens(), "decoder_input_ids": torch.randint(1, VOCABULARY, (SAMPLES, 5))}


def _sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(SAMPLES, 400)}


_DECODER = {**_TEXT, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "image_size": 16, "patch_size": 4}  # fmt: skip
_T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
       "decoder_start_token_id": 0}  # fmt: skip
_BART = {"vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
         "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
         "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
         "decoder_start_token_id": 1, "forced_eos_token_id": 2}  # fmt: skip
_CONVNEXT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32}
_WAV = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 8), "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": VOCABULARY,
        "apply_spec_augment": False, "mask_time_prob": 0.0}  # fmt: skip

for _name, _model, _config, _inputs, _settings, _fast in (
    ("bert", "BertForSequenceClassification", "BertConfig", _tokens, _TEXT, True),
    ("roberta", "RobertaForTokenClassification", "RobertaConfig", _tokens, {**_TEXT, "pad_token_id": 0}, False),
    ("electra", "ElectraForSequenceClassification", "ElectraConfig", _tokens, {**_TEXT, "embedding_size": 8}, False),
    ("albert", "AlbertForSequenceClassification", "AlbertConfig", _tokens, {**_TEXT, "embedding_size": 8}, True),
    ("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", _tokens,
     {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}, False),
    ("deberta-v2", "DebertaV2ForSequenceClassification", "DebertaV2Config", _tokens,
     {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, True),
    ("funnel", "FunnelForSequenceClassification", "FunnelConfig", _tokens,
     {"vocab_size": VOCABULARY, "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24, "block_sizes": [1, 1]}, False),
    ("xlnet", "XLNetForSequenceClassification", "XLNetConfig", _tokens,
     {"vocab_size": VOCABULARY, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24}, False),
    ("gpt2", "GPT2LMHeadModel", "GPT2Config", _tokens, _GPT2, True),
    ("gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig", _tokens,
     {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "attention_types": [[["global", "local"], 1]],
      "num_heads": 2, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2}, False),
    ("gpt-neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", _tokens, {**_TEXT, "bos_token_id": 1, "eos_token_id": 2},
     False),
    ("opt", "OPTForCausalLM", "OPTConfig", _tokens,
     {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24,
      "max_position_embeddings": 32, "word_embed_proj_dim": 16}, False),
    ("bloom", "BloomForCausalLM", "BloomConfig", _tokens,
     {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2},
     False),
    ("llama", "LlamaForCausalLM", "LlamaConfig", _tokens, _DECODER, True),
    ("mistral", "MistralForCausalLM", "MistralConfig", _tokens, _DECODER, False),
    ("gemma", "GemmaForCausalLM", "GemmaConfig", _tokens, {**_DECODER, "head_dim": 8}, False),
    ("qwen2", "Qwen2ForCausalLM", "Qwen2Config", _tokens, _DECODER, False),
    ("phi", "PhiForCausalLM", "PhiConfig", _tokens, _DECODER, False),
    ("mixtral", "MixtralForCausalLM", "MixtralConfig", _tokens,
     {**_DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}, True),
    ("mamba", "MambaForCausalLM", "MambaConfig", _tokens,
     {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "use_mambapy": False},
     False),
    ("t5", "T5ForConditionalGeneration", "T5Config", _encoder_decoder, _T5, True),
    ("mt5", "MT5ForConditionalGeneration", "MT5Config", _encoder_decoder, _T5, False),
    ("bart", "BartForConditionalGeneration", "BartConfig", _encoder_decoder, _BART, False),
    ("vit", "ViTForImageClassification", "ViTConfig", _images(), _VIT, True),
    ("deit", "DeiTForImageClassification", "DeiTConfig", _images(), _VIT, False),
    ("beit", "BeitForImageClassification", "BeitConfig", _images(), _VIT, False),
    ("dinov2", "Dinov2ForImageClassification", "Dinov2Config", _images(),
     {key: value for key, value in _VIT.items() if key != "intermediate_size"}, False),
    ("swin", "SwinForImageClassification", "SwinConfig", _images(32),
     {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4},
     True),
    ("swinv2", "Swinv2ForImageClassification", "Swinv2Config", _images(32),
     {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4},
     False),
    ("convnext", "ConvNextForImageClassification", "ConvNextConfig", _images(32), _CONVNEXT, False),
    ("convnextv2", "ConvNextV2ForImageClassification", "ConvNextV2Config", _images(32), _CONVNEXT, False),
    ("resnet", "ResNetForImageClassification", "ResNetConfig", _images(32),
     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, False),
    ("regnet", "RegNetForImageClassification", "RegNetConfig", _images(32),
     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4}, False),
    ("mobilenet-v2", "MobileNetV2ForImageClassification", "MobileNetV2Config", _images(32), {"image_size": 32}, False),
    ("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", _images(32),
     {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
      "decoder_hidden_size": 8}, False),
    ("pvt-v2", "PvtV2ForImageClassification", "PvtV2Config", _images(32),
     {"image_size": 32, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
     False),
    ("poolformer", "PoolFormerForImageClassification", "PoolFormerConfig", _images(32),
     {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}, False),
    ("wav2vec2", "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", _sound, _WAV, False),
    ("hubert", "HubertForSequenceClassification", "HubertConfig", _sound, _WAV, False),
    ("patchtst", "PatchTSTForClassification", "PatchTSTConfig",
     lambda: {"past_values": torch.randn(SAMPLES, 32, 3)},
     {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16,
      "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 24, "use_cls_token": True}, False),
):  # fmt: skip
    _add(f"transformers/{_name}", "transformers", _transformer(_model, _config, _inputs, **_settings), _fast)


# --- braindecode: EEG networks ----------------------------------------------------------------------------------------


def stand_in_for_torchaudio() -> None:
    """Put names in torchaudio's place where its binary does not load beside a CPU build of torch.

    braindecode imports it as a whole for a few filter banks, which the survey leaves out.
    """
    try:
        import_module("torchaudio")
        return
    except (ImportError, OSError):
        pass

    class Missing(type):
        def __getattr__(cls, name: str) -> Any:
            return stand_in

        def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
            raise RuntimeError("torchaudio does not load here")

    stand_in = Missing("Missing", (), {})

    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in

    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        module.__getattr__ = attribute  # type: ignore[method-assign]
        sys.modules[name] = module


def _braindecode(name: str, channels: int, classes: int, times: int, rate: int) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        stand_in_for_torchaudio()
        models = import_module("braindecode.models")
        model = getattr(models, name)(n_chans=channels, n_outputs=classes, n_times=times, sfreq=rate)
        return model, (torch.randn(SAMPLES, channels, times),), {}

    return build


for _name in (
    "ATCNet", "AttentionBaseNet", "BDTCN", "BIOT", "CTNet", "ContraWR", "Deep4Net", "EEGConformer", "EEGITNet",
    "EEGInceptionERP", "EEGMiner", "EEGNeX", "EEGNet", "EEGTCNet", "MSVTNet", "PBT", "SCCNet", "SPARCNet", "SSTDPN",
    "ShallowFBCSPNet", "SignalJEPA_PostLocal", "SignalJEPA_PreLocal", "SincShallowNet", "SleepStagerChambon2018",
    "TCFormer", "TIDNet", "TSception", "USleep",
):  # fmt: skip
    _add(
        f"braindecode/{_name}", "braindecode", _braindecode(_name, 8, 3, 400, 100), _name in ("EEGNet", "EEGConformer")
    )
for _name in ("SleepStagerBlanco2020", "HybridNet"):
    _add(f"braindecode/{_name}", "braindecode", _braindecode(_name, 22, 4, 1000, 250))


# --- MONAI: volumes ---------------------------------------------------------------------------------------------------


def _monai(name: str, shape: tuple[int, ...], /, **settings: Any) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        model = getattr(import_module("monai.networks.nets"), name)(**settings)
        return model, (torch.randn(SAMPLES, *shape),), {}

    return build


_VOLUME = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
for _name, _shape, _settings, _fast in (
    ("UNet", (1, 16, 16, 16), {**_VOLUME, "channels": (4, 8), "strides": (2,), "num_res_units": 1}, True),
    ("BasicUNet", (1, 32, 32), {**_VOLUME, "spatial_dims": 2, "features": (2, 2, 4, 4, 8, 2)}, False),
    ("AttentionUnet", (1, 16, 16, 16), {**_VOLUME, "channels": (4, 8), "strides": (2,)}, False),
    ("SegResNet", (1, 16, 16, 16), {**_VOLUME, "init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}, False),
    ("DynUNet", (1, 16, 16, 16), {**_VOLUME, "kernel_size": (3, 3, 3), "strides": (1, 2, 2), "filters": (4, 8, 8),
                                  "upsample_kernel_size": (2, 2)}, False),
    ("VNet", (1, 16, 16), {**_VOLUME, "spatial_dims": 2}, False),
    ("DenseNet121", (1, 32, 32), {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4,
                                  "growth_rate": 2, "block_config": (2, 2)}, False),
    ("ViT", (1, 16, 16, 16), {"in_channels": 1, "img_size": (16, 16, 16), "patch_size": (8, 8, 8), "hidden_size": 12,
                              "mlp_dim": 16, "num_layers": 1, "num_heads": 2, "classification": True}, False),
    ("UNETR", (1, 16, 16, 16), {"in_channels": 1, "out_channels": 2, "img_size": (16, 16, 16), "feature_size": 4,
                                "hidden_size": 12, "mlp_dim": 16, "num_heads": 2}, False),
    ("SwinUNETR", (1, 64, 64), {"in_channels": 1, "out_channels": 2, "feature_size": 12, "spatial_dims": 2,
                                "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}, False),
    ("AutoEncoder", (1, 16, 16, 16), {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": (4, 8),
                                      "strides": (2, 2)}, False),
    ("HighResNet", (1, 12, 12, 12), {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, False),
    ("Regressor", (1, 16, 16), {"in_shape": (1, 16, 16), "out_shape": (2,), "channels": (4, 8), "strides": (2, 2)},
     False),
    ("FullyConnectedNet", (10,), {"in_channels": 10, "out_channels": 3, "hidden_channels": (8, 6)}, False),
    ("SEResNet50", (1, 32, 32), {"spatial_dims": 2, "in_channels": 1, "num_classes": 2, "layers": (1, 1, 1, 1)}, False),
):  # fmt: skip
    _add(f"monai/{_name}", "monai", _monai(_name, _shape, **_settings), _fast)


# --- PyTorch Geometric on dense batches, PEFT adapters --------------------------------------------


def _dense_graph(name: str) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        dense = import_module("torch_geometric.nn.dense")
        linear = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
        layer = dense.DenseGINConv(linear) if name == "DenseGINConv" else getattr(dense, name)(4, 5)
        adjacency = (torch.rand(SAMPLES, 8, 8) > 0.5).to(torch.get_default_dtype())
        return layer, (torch.randn(SAMPLES, 8, 4), adjacency), {}

    return build


for _name in ("DenseGCNConv", "DenseSAGEConv", "DenseGINConv", "DenseGraphConv", "DenseGATConv"):
    _add(f"torch_geometric/{_name}", "torch_geometric", _dense_graph(_name), _name == "DenseGCNConv")


def _adapted(kind: str, **settings: Any) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        peft = import_module("peft")
        model, inputs, keywords = _transformer("LlamaForCausalLM", "LlamaConfig", _tokens, **_DECODER)()
        adapted = peft.get_peft_model(model, getattr(peft, kind)(target_modules=["q_proj", "v_proj"], **settings))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter)  # one factor is zero at the start, which leaves the other without a gradient
        return adapted, inputs, keywords

    return build


_add("peft/LoRA", "peft", _adapted("LoraConfig", r=3), True)
_add("peft/DoRA", "peft", _adapted("LoraConfig", r=3, use_dora=True))
_add("peft/LoHa", "peft", _adapted("LoHaConfig", r=3))
_add("peft/LoKr", "peft", _adapted("LoKrConfig", r=3))
