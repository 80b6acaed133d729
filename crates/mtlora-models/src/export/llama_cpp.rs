//! An adapter as llama.cpp reads it (`llama_adapter_lora_init_impl` in its `llama-adapter.cpp`): a GGUF file with two
//! matrices for each adapted tensor of the base, `lora_a` `[rank, in]` and `lora_b` `[out, rank]`. llama.cpp multiplies with
//! `adapter.lora.alpha` over the number of `lora_b`'s columns.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::error::ExportError;
use super::plain::{PlainAdapter, factors};
use crate::families::causal::CausalModelConfig;
use crate::files::save::create_folder;
use crate::files::tensor_values::TensorValues;
use crate::gguf::blocks::BlockType;
use crate::gguf::rows::with_neighbours;
use crate::gguf::write::{GgufTensor, GgufValue, write_gguf};

/// The name of the file.
pub(super) const FILE: &str = "adapter.gguf";

/// Writes the file.
pub(super) fn write(plain: &PlainAdapter<'_>, folder: &Path) -> Result<PathBuf, ExportError> {
    let program = plain.server.title();
    let base = |message: &str| ExportError::Base {
        program,
        message: message.to_string(),
    };
    let config = plain
        .base
        .ok_or_else(|| base("name its folder with --model"))?;
    let layout = config.llama_cpp().ok_or_else(|| {
        base("its names for models of this family are not known here; `mtlora merge` the adapter into the model")
    })?;
    // llama.cpp divides by each tensor's own rank, so that this is undone in `B`; with one rank it is exact.
    let alpha = plain.rank() as f64;
    let mut tensors = Vec::new();
    for (name, module) in &plain.adapter.modules {
        let own = layout
            .tensor_name(&format!("{name}.weight"))
            .ok_or_else(|| ExportError::Refused {
                program,
                what: "an adapter on",
                name: name.clone(),
                hint: "`mtlora merge` the adapter into the model",
            })?;
        let [(a, a_sides), (b, b_sides)] = factors(module);
        let [output, rank] = b_sides;
        let scale = rank as f64 / alpha;
        let mut b: Cow<'_, [f32]> = b;
        if scale != 1.0 {
            let scaled = b.iter().map(|value| (f64::from(*value) * scale) as f32);
            b = Cow::Owned(scaled.collect());
        }
        if let Some(width) = layout.paired_heads(name) {
            if width == 0 || width % 2 != 0 || output % width != 0 {
                return Err(base("its heads have another width than the adapter's rows"));
            }
            b = Cow::Owned(with_neighbours(&b, output, width));
        }
        for (end, sides, values) in [("lora_a", a_sides, a), ("lora_b", b_sides, b)] {
            tensors.push(GgufTensor {
                name: format!("{own}.{end}"),
                shape: sides.to_vec(),
                kind: BlockType::F32,
                values: TensorValues::Ready(values),
            });
        }
    }
    let text = |value: &str| GgufValue::Text(value.to_string());
    let mut fields = vec![
        ("general.architecture", text(layout.architecture())),
        ("general.type", text("adapter")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", GgufValue::F32(alpha as f32)),
    ];
    if let Some(name) = &plain.adapter.config.base_model_name_or_path {
        fields.push(("general.base_model.count", GgufValue::U32(1)));
        fields.push(("general.base_model.0.name", text(name)));
    }
    let fields: Vec<(String, GgufValue)> = fields
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    create_folder(folder)?;
    let path = folder.join(FILE);
    write_gguf(&path, &fields, &tensors)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use burn::tensor::TensorData;
    use mtlora_core::{AdapterForm, AdapterValues, Factors, Fold, Structure};

    use super::*;
    use crate::adapter::{AdaptedModule, AdapterConfig, PeftAdapter, TargetModules};
    use crate::export::{ExportOptions, Server};
    use crate::families::causal::CausalConfig;
    use crate::families::registry::ModelFamilies;
    use crate::families::sizes::ModelSizes;
    use crate::gguf::file::GgufFile;
    use crate::gguf::rows::with_halves;

    fn config(model_type: &str) -> CausalConfig {
        let sizes = ModelSizes {
            vocab_size: 20,
            hidden_size: 6,
            layers: 1,
            heads: 2,
            key_value_heads: Some(1),
            head_width: Some(4),
            intermediate_size: Some(5),
            max_tokens: 9,
            end_of_text: None,
        };
        ModelFamilies::builtin()
            .new_causal(model_type, &sizes)
            .unwrap()
    }

    fn numbers(rows: usize, columns: usize) -> TensorData {
        let values: Vec<f32> = (0..rows * columns)
            .map(|at| (at * 7 % 13) as f32 - 6.0)
            .collect();
        TensorData::new(values, [rows, columns])
    }

    /// llama.cpp's update is alpha / rank of the file's factors, each tensor with its own rank, and its rows are those of
    /// the tensor in the base's file.
    #[test]
    fn llama_cpp_computes_the_same_update() {
        for (model_type, architecture, turned) in [
            ("llama", "llama", true),
            ("mistral", "llama", true),
            ("qwen3", "qwen3", false),
        ] {
            let mut modules = BTreeMap::new();
            for (name, [output, input], rank) in [
                ("self_attn.q_proj", [8, 6], 4),
                ("self_attn.v_proj", [4, 6], 1),
                ("mlp.up_proj", [5, 6], 2),
            ] {
                let values = AdapterValues {
                    a: numbers(rank, input),
                    b: numbers(output, rank),
                    further: Factors::none(),
                    form: AdapterForm::new(Structure::Lora, 0.5),
                };
                modules.insert(
                    format!("model.layers.0.{name}"),
                    AdaptedModule {
                        values,
                        embedding: false,
                    },
                );
            }
            let lora = AdapterConfig::new(4, 2.0, TargetModules::AllLinear);
            let adapter = PeftAdapter::new(lora, modules, BTreeMap::new());
            let options = ExportOptions {
                fold: Fold::B,
                base: Some(config(model_type)),
                base_name: Some("base".to_string()),
            };
            let out = tempfile::tempdir().unwrap();
            let plain = PlainAdapter::new(&adapter, Server::LlamaCpp, &options).unwrap();
            let file = GgufFile::open(&write(&plain, out.path()).unwrap()).unwrap();
            assert_eq!(file.text("general.architecture").unwrap(), architecture);
            assert_eq!(file.text("general.type").unwrap(), "adapter");
            assert_eq!(file.text("adapter.type").unwrap(), "lora");
            assert_eq!(file.text("general.base_model.0.name").unwrap(), "base");
            let alpha = file.number("adapter.lora.alpha").unwrap() as f32;
            for (own, theirs) in [
                ("self_attn.q_proj", "attn_q"),
                ("self_attn.v_proj", "attn_v"),
                ("mlp.up_proj", "ffn_up"),
            ] {
                let read = |end: &str| {
                    let info = &file.tensors[&format!("blk.0.{theirs}.weight.{end}")];
                    (info.shape.clone(), file.read(end, info).unwrap())
                };
                let ((a_sides, a), (b_sides, mut b)) = (read("lora_a"), read("lora_b"));
                if turned && theirs == "attn_q" {
                    b = with_halves(&b, b_sides[0], 4);
                }
                let module = &adapter.modules[&format!("model.layers.0.{own}")];
                let [(own_a, own_a_sides), (own_b, own_b_sides)] = factors(module);
                assert_eq!(
                    (a_sides, b_sides),
                    (own_a_sides.to_vec(), own_b_sides.to_vec())
                );
                assert_eq!(a, *own_a);
                let scale = alpha / own_b_sides[1] as f32;
                let found: Vec<f32> = b.iter().map(|value| scale * value).collect();
                let wanted: Vec<f32> = own_b.iter().map(|value| 0.5 * value).collect();
                assert_eq!(found, wanted, "{model_type} {own}");
            }
        }
    }
}
