//! A model that llama.cpp's tools wrote as a GGUF file computes what it computes as a Hugging Face folder.
//! tests/interop/gguf_cases.py made the files.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use common::{floats, folder};
use mtlora_core::{BaseDtype, Init, MtLoraConfig, Structure, Targets, devices};
use mtlora_models::{
    CachedDecoder, CausalBatch, CausalConfig, CausalLm, CausalText, ChatTemplate, Checkpoint,
    Conversation, GenerationConfig, TextConfig, convert_gguf, copy_tokenizer_files, generate,
};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/gguf"
    ))
    .join(name)
}

/// A Llama, whose rows of query and key are in another order in the file, and a Qwen3, whose are not.
#[test]
fn a_converted_model_has_the_tensors_of_the_original() {
    for name in ["llama_bias", "qwen3"] {
        let out = tempfile::tempdir().unwrap();
        let made = convert_gguf(&fixture(&format!("{name}.gguf")), out.path()).unwrap();
        let old = Checkpoint::open(&folder(name)).unwrap();
        let new = Checkpoint::open(out.path()).unwrap();
        let mut parameters = 0;
        for tensor in old.names() {
            let (wanted, found) = (old.read_f32(tensor).unwrap(), new.read_f32(tensor).unwrap());
            parameters += wanted.1.len();
            assert_eq!(wanted, found, "{name} {tensor}");
        }
        assert_eq!(old.names().count(), new.names().count());
        assert_eq!(made.parameters, parameters);

        let config = CausalConfig::from_folder(out.path()).unwrap();
        let original = CausalConfig::from_folder(&folder(name)).unwrap();
        assert_eq!(made.model_type, original.model_type());
        assert_eq!(config.max_tokens(), original.max_tokens());
        CausalLm::from_folder(out.path(), &config, &devices().remove(0).device).unwrap();
    }
}

/// In the folder that is made, and in the file itself.
#[test]
fn the_tokenizer_the_end_tokens_and_the_chat_template_come_along() {
    let file = fixture("qwen3.gguf");
    let out = tempfile::tempdir().unwrap();
    convert_gguf(&file, out.path()).unwrap();
    let copied = tempfile::tempdir().unwrap();
    copy_tokenizer_files(&file, copied.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let [one, other] = [out.path(), copied.path()].map(|folder| {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()
        });
        assert_eq!(one, other);
    }
    for folder in [out.path(), &file] {
        has_the_texts(folder);
    }
    let settings = std::fs::read(out.path().join("tokenizer_config.json")).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    assert_eq!(settings["chat_template"], "{{ messages[0].content }}");
    assert_eq!(settings["eos_token"], "</s>");
}

fn has_the_texts(folder: &Path) {
    let config = CausalConfig::from_folder(folder).unwrap();
    let text = CausalText::from_folder(folder, &config).unwrap();
    // 3 is "a"; 29 is "ab", by the one merge; 30 is the token that the user defined; 2 is a control token.
    assert_eq!(text.encode("cab<user>a</s>").unwrap(), [5, 29, 30, 3, 2]);
    assert_eq!(text.decode(&[5, 29, 2]).unwrap(), "cab");
    let generation = GenerationConfig::from_folder(folder, config.vocab_size()).unwrap();
    assert_eq!(generation.eos_token_ids, [2, 0]);
}

/// The value of a text in the file, replaced by another of the same length.
fn with_text(old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = std::fs::read(fixture("qwen3.gguf")).unwrap();
    let mut places = Vec::new();
    for at in 0..bytes.len() - old.len() {
        if bytes[at..].starts_with(old.as_bytes()) {
            places.push(at);
        }
    }
    assert!(!places.is_empty(), "{old}");
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_nothing_is_written() {
    for (old, new, message) in [
        ("qwen3", "gemma", "`general.architecture` is `gemma`"),
        ("gpt2", "bert", "`tokenizer.ggml.model` is `bert`"),
        ("qwen2", "tekke", "`tokenizer.ggml.pre` is `tekke`"),
        (
            "tokenizer.ggml.pre",
            "tokenizer.ggml.prx",
            "`tokenizer.ggml.pre` is missing",
        ),
        (
            "tokenizer.ggml.eos_token_id",
            "tokenizer.ggml.bos_token_id",
            "a field occurs twice",
        ),
        ("ffn_gate", "ffn_nose", "ffn_nose.weight"),
        (
            "qwen3.block_count",
            "qwen3.block_kount",
            "`qwen3.block_count` is missing",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changed.gguf");
        std::fs::write(&path, with_text(old, new)).unwrap();
        let out = folder.path().join("out");
        let error = convert_gguf(&path, &out).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!out.exists(), "{message}");
    }
}

/// SmolLM2-135M-Instruct in Q4_1 and Q8_0: the token ids of texts and of rendered conversations, the five likeliest next
/// tokens and greedy continuations are those of transformers on the same unpacked weights.
#[test]
#[ignore = "needs SmolLM2-135M-Instruct.Q4_1.gguf, which MTLORA_SMOLLM2 names"]
fn a_real_model_says_what_it_says_in_transformers() {
    let path = std::env::var_os("MTLORA_SMOLLM2").expect("MTLORA_SMOLLM2 names the GGUF file");
    let out = tempfile::tempdir().unwrap();
    let made = convert_gguf(Path::new(&path), out.path()).unwrap();
    assert_eq!(made.parameters, 134_515_008);
    says_what_it_says_in_transformers(out.path(), BaseDtype::F32);
    says_what_it_says_in_transformers(Path::new(&path), BaseDtype::Packed);
}

fn says_what_it_says_in_transformers(folder: &Path, base_dtype: BaseDtype) {
    let config = CausalConfig::from_folder(folder).unwrap();
    let text = CausalText::from_folder(folder, &config).unwrap();
    let device = devices().remove(0).device;
    let model = CausalLm::from_folder_in(base_dtype, folder, &config, &device).unwrap();
    let expected = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/smollm2/expected.json"
    );
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let template = ChatTemplate::from_folder(folder, &text).unwrap();
    assert_eq!(template.end_of_turn(&text).unwrap(), Some(2));
    for chat in expected["chats"].as_array().unwrap() {
        let messages = chat["messages"].as_array().unwrap().iter();
        let conversation = Conversation {
            messages: messages
                .map(|one| one.as_object().unwrap().clone())
                .collect(),
            ..Conversation::default()
        };
        assert_eq!(
            template.render(&conversation, true).unwrap(),
            chat["text_with_generation_prompt"]
        );
        for suffix in ["", "_with_generation_prompt"] {
            let rendered = chat[format!("text{suffix}")].as_str().unwrap();
            assert_eq!(
                text.encode(rendered).unwrap(),
                ids(&chat[format!("input_ids{suffix}")])
            );
        }
    }
    let settings = GenerationConfig {
        max_new_tokens: 24,
        ..GenerationConfig::from_folder(folder, config.vocab_size()).unwrap()
    };
    for prompt in expected["prompts"].as_array().unwrap() {
        for form in ["raw", "chat"] {
            let case = &prompt[form];
            let prompt = ids(&case["input_ids"]);
            assert_eq!(text.encode(case["text"].as_str().unwrap()).unwrap(), prompt);
            let length = prompt.len();
            let batch = CausalBatch::new([(prompt.as_slice(), 0..length)], &device).unwrap();
            let last = model.logits(&batch.packed).narrow(0, length - 1, 1);
            let chances = floats(log_softmax(last, 1));
            let mut order: Vec<usize> = (0..chances.len()).collect();
            order.sort_by(|a, b| chances[*b].total_cmp(&chances[*a]));
            for (token, wanted) in order.iter().zip(case["top5"].as_array().unwrap()) {
                assert_eq!(*token as u64, wanted["id"].as_u64().unwrap());
                let apart = f64::from(chances[*token]) - wanted["logprob"].as_f64().unwrap();
                assert!(apart.abs() < 2e-3, "{apart}");
            }
            let mut decoder = CachedDecoder::new(&model, &config, &device);
            let written = generate(&mut decoder, &[prompt], &settings, &mut |_| ()).unwrap();
            let mut whole = written[0][0].tokens.clone();
            whole.extend(written[0][0].end_token);
            assert_eq!(whole, ids(&case["greedy"]));
        }
    }
}

/// The gradients of a model's parameters, in Burn's order.
struct Found {
    params: GradientsParams,
    gradients: Vec<f32>,
}

impl ModuleVisitor for Found {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.params.get::<D>(param.id) {
            self.gradients.extend(gradient.into_data().iter::<f32>());
        }
    }
}

/// An adapter on packed weights has the loss and the gradients that it has on the same weights unpacked, with gradient
/// checkpointing too.
#[test]
#[ignore = "needs SmolLM2-135M-Instruct.Q4_1.gguf, which MTLORA_SMOLLM2 names"]
fn a_packed_model_trains_as_the_unpacked_one() {
    let path = std::env::var_os("MTLORA_SMOLLM2").expect("MTLORA_SMOLLM2 names the GGUF file");
    let path = Path::new(&path);
    let device = devices().remove(0).device.autodiff();
    let config = CausalConfig::from_folder(path).unwrap();
    let ids: Vec<u32> = (0..150).map(|at| 300 + at * 37 % 4000).collect();
    let batch = CausalBatch::new([(&ids[..100], 1..100), (&ids[100..], 1..50)], &device).unwrap();
    let made = |base_dtype, checkpointing: bool| {
        let model = CausalLm::from_folder_in(base_dtype, path, &config, &device).unwrap();
        let model = MtLoraConfig::new(Structure::Shim)
            .with_rank(4)
            .with_dropout(0.1)
            .with_init(Init::Kaiming)
            .with_seed(3)
            .with_target_modules(Targets::names(["q_proj", "down_proj"]))
            .attach(model)
            .unwrap();
        mtlora_core::seed(&device, 1);
        let mut found = Vec::new();
        let loss = if checkpointing {
            let (loss, layers) = model.checkpointed_loss(&batch, 0.0);
            let mut gradients = loss.backward();
            let parts = layers.gradients(&mut gradients);
            // The last layer's come first.
            for part in parts.into_iter().rev() {
                let params = GradientsParams::from_grads(part, &model);
                let mut of = Found {
                    params,
                    gradients: Vec::new(),
                };
                model.visit(&mut of);
                found.extend(of.gradients);
            }
            loss
        } else {
            let loss = model.loss(&batch, 0.0);
            let params = GradientsParams::from_grads(loss.backward(), &model);
            let mut of = Found {
                params,
                gradients: Vec::new(),
            };
            model.visit(&mut of);
            found = of.gradients;
            loss
        };
        (loss.into_scalar::<f32>(), found)
    };
    let (loss, gradients) = made(BaseDtype::F32, false);
    let (packed_loss, packed) = made(BaseDtype::Packed, false);
    assert!(
        (packed_loss / loss - 1.0).abs() < 1e-5,
        "{packed_loss} for {loss}"
    );
    assert_eq!(packed.len(), gradients.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    };
    let size = norm(&mut gradients.iter().copied());
    let apart = norm(&mut gradients.iter().zip(&packed).map(|(a, b)| a - b)) / size;
    println!("loss {loss}, packed {packed_loss}; gradients apart {apart:e}");
    assert!(size > 0.0 && apart < 1e-4, "{apart}");
    let again = made(BaseDtype::Packed, true);
    assert!(
        again == (packed_loss, packed),
        "checkpointing changes a byte"
    );
}
