//! llama.cpp's names of a decoder's tensors, and Hugging Face's.

/// The maps and norms of a layer: Hugging Face's name, and llama.cpp's.
const MODULES: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// What is not in a layer.
const OTHERS: [(&str, &str); 3] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
];

/// Hugging Face's name of a tensor of a GGUF file.
pub(super) fn hugging_face_name(name: &str) -> Option<String> {
    let (module, end) = split(name)?;
    if let Some((own, _)) = OTHERS.iter().find(|(_, theirs)| *theirs == module) {
        return (end == "weight").then(|| format!("{own}.{end}"));
    }
    let (layer, module) = module.strip_prefix("blk.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (own, _) = MODULES.iter().find(|(_, theirs)| *theirs == module)?;
    Some(format!("model.layers.{layer}.{own}.{end}"))
}

/// llama.cpp's name of a tensor with this Hugging Face name.
pub(crate) fn llama_cpp_name(name: &str) -> Option<String> {
    let (module, end) = split(name)?;
    if let Some((_, theirs)) = OTHERS.iter().find(|(own, _)| *own == module) {
        return Some(format!("{theirs}.{end}"));
    }
    let (layer, module) = module.strip_prefix("model.layers.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let (_, theirs) = MODULES.iter().find(|(own, _)| *own == module)?;
    Some(format!("blk.{layer}.{theirs}.{end}"))
}

/// The module of a weight or bias, and which of the two it is.
fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(_, end)| ["weight", "bias"].contains(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (own, theirs) in OTHERS {
            let [own, theirs] = [own, theirs].map(|module| format!("{module}.weight"));
            assert_eq!(hugging_face_name(&theirs).as_ref(), Some(&own));
            assert_eq!(llama_cpp_name(&own), Some(theirs));
        }
        for (own, theirs) in MODULES {
            let own = format!("model.layers.12.{own}.bias");
            let theirs = format!("blk.12.{theirs}.bias");
            assert_eq!(hugging_face_name(&theirs).as_ref(), Some(&own));
            assert_eq!(llama_cpp_name(&own), Some(theirs));
        }
        for name in [
            "blk.0.attn_q",
            "blk.x.attn_q.weight",
            "output.bias",
            "blk.0.nose.weight",
        ] {
            assert_eq!(hugging_face_name(name), None, "{name}");
        }
        assert_eq!(llama_cpp_name("model.layers.0.self_attn.nose.weight"), None);
    }
}
