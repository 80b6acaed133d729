//! Llama-style decoders agree with transformers in hidden states, logits, loss and generated tokens, on every device of this
//! build.
#![allow(clippy::unwrap_used)]

mod common;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use common::{Expected, difference, floats, folder};
use mtlora_core::{
    BaseDtype, CpuPath, NamedDevice, State, adapters, capabilities, devices, each_parameter,
    load_state,
};
use mtlora_models::{
    CachedDecoder, CausalBatch, CausalConfig, CausalDecoder, CausalLm, CausalModelConfig,
    Checkpoint, GenerationConfig, LlamaConfig, PeftAdapter, RewindingDecoder, TextConfig, generate,
    write_checkpoint,
};
use safetensors::SafeTensors;

/// Of several architectures, with what each alone has. The last three are of tests/interop/decoder_cases.py.
const MODELS: [&str; 7] = [
    "llama",
    "qwen2",
    "qwen3",
    "smollm3",
    "mistral",
    "qwen2_window",
    "llama_bias",
];

/// Those of [`MODELS`] with beam searches.
const WITH_BEAMS: [&str; 4] = ["llama", "qwen2", "qwen3", "smollm3"];

fn model(name: &str, device: &Device) -> (CausalLm, CausalConfig) {
    let folder = folder(name);
    let config = CausalConfig::from_folder(&folder).unwrap();
    let model = CausalLm::from_folder(&folder, &config, device).unwrap();
    (model, config)
}

fn expected(name: &str) -> Expected {
    Expected(std::fs::read(folder(name).join("expected.safetensors")).unwrap())
}

fn tokens(values: Vec<i64>) -> Vec<u32> {
    values.into_iter().map(|id| id as u32).collect()
}

/// The sequences without their padding, and their padded length.
fn sequences(expected: &Expected) -> (Vec<Vec<u32>>, usize) {
    let file = SafeTensors::deserialize(&expected.0).unwrap();
    let length = file.tensor("input_ids").unwrap().shape()[1];
    let mask = expected.ints("attention_mask");
    let ids = tokens(expected.ints("input_ids"));
    let rows = ids.chunks(length).zip(mask.chunks(length));
    let rows = rows.map(|(ids, mask)| {
        let real = mask.iter().filter(|m| **m == 1).count();
        ids[..real].to_vec()
    });
    (rows.collect(), length)
}

fn batch(sequences: &[Vec<u32>], device: &Device) -> CausalBatch {
    let all = sequences.iter().map(|ids| (ids.as_slice(), 0..ids.len()));
    CausalBatch::new(all, device).unwrap()
}

/// The rows of padded sequences that hold tokens.
fn without_padding(padded: &[f32], sequences: &[Vec<u32>], length: usize) -> Vec<f32> {
    let width = padded.len() / (sequences.len() * length);
    let rows = padded.chunks(length * width).zip(sequences);
    rows.flat_map(|(row, ids)| row[..ids.len() * width].to_vec())
        .collect()
}

fn compare(what: &str, found: Tensor<2>, expected: &[f32]) {
    // A device that compiles for each shape pads the batch.
    let found = floats(found);
    let error = difference(&found[..expected.len()], expected);
    assert!(error < 1e-4, "{what}: {error}");
}

#[test]
fn hidden_states_logits_and_loss_agree_with_transformers() {
    for name in MODELS {
        let expected = expected(name);
        let (sequences, length) = sequences(&expected);
        let wanted = |tensor: &str| without_padding(&expected.floats(tensor), &sequences, length);
        for NamedDevice { name: on, device } in devices() {
            let (model, _) = model(name, &device);
            let batch = batch(&sequences, &device);
            for (index, state) in model.hidden_states(&batch.packed).into_iter().enumerate() {
                let tensor = format!("hidden_{index}");
                compare(&format!("{on} {name} {tensor}"), state, &wanted(&tensor));
            }
            let logits = model.logits(&batch.packed);
            compare(&format!("{on} {name} logits"), logits, &wanted("logits"));
            let loss = model.loss(&batch, 0.0).div_scalar(batch.count as f32);
            let loss = loss.reshape([1, 1]);
            compare(&format!("{on} {name} loss"), loss, &expected.floats("loss"));
        }
    }
}

#[test]
fn generated_tokens_agree_with_transformers() {
    for name in MODELS {
        let expected = expected(name);
        let prompts = [tokens(expected.ints("prompt"))];
        for NamedDevice { name: on, device } in devices() {
            let (model, config) = model(name, &device);
            // The end tokens are those of generation_config.json.
            let settings = GenerationConfig {
                max_new_tokens: 24,
                ..GenerationConfig::from_folder(&folder(name), config.vocab_size()).unwrap()
            };
            let check = |what: &str, settings: &GenerationConfig| {
                let mut decoder = CachedDecoder::new(&model, &config, &device);
                let mut all = generate(&mut decoder, &prompts, settings, &mut |_| ()).unwrap();
                let found = all.remove(0).remove(0);
                let mut whole = found.tokens.clone();
                whole.extend(found.end_token);
                let wanted = tokens(expected.ints(what)).split_off(prompts[0].len());
                let (wanted, padding) = wanted.split_at(whole.len());
                assert_eq!(whole, wanted, "{on} {name} {what}");
                assert!(padding.iter().all(|id| *id == 0), "{on} {name} {what}");
                found.score
            };
            check("greedy", &settings);
            if !WITH_BEAMS.contains(&name) {
                continue;
            }
            for (num_beams, length_penalty, no_repeat_ngram_size) in
                [(4, 1.0, 0), (10, 0.9, 4), (5, 0.8, 3)]
            {
                let what =
                    format!("beam{num_beams}_lp{length_penalty:.1}_ng{no_repeat_ngram_size}");
                let found = check(
                    &what,
                    &GenerationConfig {
                        num_beams,
                        length_penalty,
                        no_repeat_ngram_size,
                        ..settings.clone()
                    },
                );
                let score = expected.floats(&format!("{what}_score"))[0];
                assert!((found - score).abs() < 1e-4, "{on} {name} {what}");
            }
        }
    }
}

/// Some rows are continued several times and some are dropped, and rows grow longer than the windows.
#[test]
fn logits_from_the_cache_are_those_of_the_whole_sequence() {
    for NamedDevice { name: on, device } in devices() {
        for name in MODELS {
            let (model, config) = model(name, &device);
            let most = config.vocab_size() - 1;
            let id = |value: usize| (value % most) as u32 + 1;
            let mut decoder = CachedDecoder::new(&model, &config, &device);
            let prompts = [1usize, 9, 4].iter();
            let mut rows: Vec<Vec<u32>> = prompts
                .map(|length| (0..*length).map(|at| id(at * 37)).collect())
                .collect();
            let mut logits = decoder.start(&rows).unwrap();
            for step in 0..6usize {
                let last: Vec<Vec<f32>> = rows
                    .iter()
                    .map(|row| {
                        let all = model.logits(&batch(std::slice::from_ref(row), &device).packed);
                        floats(all.narrow(0, row.len() - 1, 1))
                    })
                    .collect();
                let error = difference(&logits, &last.concat());
                assert!(error < 1e-4, "{on} {name} step {step}: {error}");
                let parents: Vec<usize> = (0..5).map(|row| (row * 2 + step) % rows.len()).collect();
                let new: Vec<u32> = (0..5).map(|row| id(row * 11 + step)).collect();
                let continued = parents.iter().zip(&new).map(|(parent, token)| {
                    let mut row = rows[*parent].clone();
                    row.push(*token);
                    row
                });
                rows = continued.collect();
                logits = decoder.step(&parents, &new).unwrap();
            }
        }
    }
}

#[test]
fn a_saved_model_is_read_back_to_the_bit() {
    for name in MODELS {
        let device = devices().remove(0).device;
        let (model, config) = model(name, &device);
        let copy = tempfile::tempdir().unwrap();
        model.save(copy.path(), &config).unwrap();
        let old = Checkpoint::open(&folder(name)).unwrap();
        let new = Checkpoint::open(copy.path()).unwrap();
        for tensor in new.names() {
            let values = |file: &Checkpoint| file.read_f32(tensor).unwrap();
            assert_eq!(values(&old), values(&new), "{name} {tensor}");
        }
        assert_eq!(old.names().count(), new.names().count());
        // The configuration asks for the same model.
        let again = CausalConfig::from_folder(copy.path()).unwrap();
        let model = CausalLm::from_folder(copy.path(), &again, &device).unwrap();
        let expected = expected(name);
        let (sequences, length) = sequences(&expected);
        let wanted = without_padding(&expected.floats("logits"), &sequences, length);
        compare(
            name,
            model.logits(&batch(&sequences, &device).packed),
            &wanted,
        );
        let fields = |config: &dyn CausalModelConfig| {
            let mut all: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&config.to_json()).unwrap();
            all.sort_keys();
            all
        };
        assert_eq!(fields(&config), fields(&again), "{name}");
    }
}

/// The tensors that are written for one of the file, by their names.
type Change<'a> = &'a dyn Fn(&str, Vec<f32>) -> Vec<(String, Vec<f32>)>;

/// A separate output map in the file counts, whatever the configuration says, and one weight may have either name.
#[test]
fn tied_and_separate_output_maps_are_told_apart() {
    let device = devices().remove(0).device;
    let name = "qwen2";
    let (tied, config) = model(name, &device);
    assert!(tied.model().ties_output_map());
    let checkpoint = Checkpoint::open(&folder(name)).unwrap();
    let with = |change: Change<'_>| {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(
            folder(name).join("config.json"),
            copy.path().join("config.json"),
        )
        .unwrap();
        let mut tensors = Vec::new();
        for name in checkpoint.names() {
            let shape = checkpoint.shape(name).unwrap().to_vec();
            for (name, values) in change(name, checkpoint.read_f32(name).unwrap().1) {
                tensors.push((name, shape.clone(), values.into()));
            }
        }
        write_checkpoint(&copy.path().join("model.safetensors"), tensors).unwrap();
        CausalLm::from_folder(copy.path(), &config, &device).unwrap()
    };
    let is_table = |name: &str| name == "model.embed_tokens.weight";
    let output = || "lm_head.weight".to_string();
    let renamed = with(&|name, values| {
        let own = if is_table(name) {
            output()
        } else {
            name.to_string()
        };
        vec![(own, values)]
    });
    let twice = with(&|name, values| {
        let second = is_table(name).then(|| (output(), values.clone()));
        let first = Some((name.to_string(), values));
        first.into_iter().chain(second).collect()
    });
    let apart = with(&|name, values| {
        let other = values.iter().map(|value| value + 0.5).collect();
        let second = is_table(name).then(|| (output(), other));
        let first = Some((name.to_string(), values));
        first.into_iter().chain(second).collect()
    });
    let batch = batch(&[vec![5, 6, 7]], &device);
    let logits = |model: &CausalLm| floats(model.logits(&batch.packed));
    for same in [&renamed, &twice] {
        assert!(same.model().ties_output_map());
        assert_eq!(logits(same), logits(&tied));
    }
    assert!(!apart.model().ties_output_map());
    assert!(difference(&logits(&apart), &logits(&tied)) > 0.1);
}

/// All values of a model in 32 bits.
fn unpacked(model: &CausalLm) -> State {
    let mut all = State::new();
    each_parameter(model, |parameter| {
        let values = parameter.flat().into_data().try_to_vec::<f32>().unwrap();
        let data = TensorData::new(values, parameter.shape());
        all.insert(parameter.path.to_string(), data);
    });
    all
}

/// How a model's parameters of floats are stored, in the order of the module.
#[derive(Default)]
struct StoredDtypes(Vec<DType>);

impl ModuleVisitor for StoredDtypes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().dtype());
    }
}

/// Rounds the parameters to bfloat16 that are stored so in another model.
struct RoundAlike(std::vec::IntoIter<DType>);

impl ModuleMapper for RoundAlike {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.next() {
            Some(DType::BF16) => param.map(|value| value.cast(FloatDType::BF16)),
            _ => param,
        }
    }
}

/// A model whose weights are kept in fewer bits computes what these weights are in 32 bits, and that is not far from the exact
/// ones.
#[test]
fn weights_in_fewer_bits_give_nearly_the_same_logits() {
    let device = devices().remove(0).device;
    let has_tiles = capabilities(&device)
        .cpu
        .is_some_and(|choice| choice.path == CpuPath::Amx);
    let name = "qwen3";
    let (exact, config) = model(name, &device);
    let batch = batch(&[vec![5, 6, 7, 8, 9]], &device);
    let logits = |model: &CausalLm| floats(model.logits(&batch.packed));
    // A tied output map is the embedding, in bfloat16, which rounds what it multiplies.
    let hidden = |model: &CausalLm| floats(model.hidden(&batch.packed));
    let wanted = logits(&exact);
    let size = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
    for dtype in BaseDtype::ALL {
        if dtype.check(&device).is_err() {
            continue;
        }
        let kept = CausalLm::from_folder_in(dtype, &folder(name), &config, &device).unwrap();
        let found = hidden(&kept);
        let bound = match dtype {
            // What is multiplied with bfloat16 is rounded too.
            BaseDtype::Bf16 => 2e-2,
            _ => 1e-4,
        };
        let values = unpacked(&kept);
        let mut dense = load_state(exact.clone(), values.clone()).unwrap();
        if dtype == BaseDtype::Int8 && has_tiles {
            // On tiles of bfloat16, both factors are rounded: as those of the same values kept in it.
            dense = BaseDtype::Bf16.keep(dense).unwrap();
        }
        if dtype == BaseDtype::Nf4 {
            // Embeddings, and weights whose inputs are no multiple of 32, are in bfloat16.
            let mut stored = StoredDtypes::default();
            kept.visit(&mut stored);
            assert!(
                stored
                    .0
                    .iter()
                    .any(|dtype| matches!(dtype, DType::QFloat(_)))
            );
            dense = dense.map(&mut RoundAlike(stored.0.into_iter()));
        }
        let apart = difference(&found, &hidden(&dense));
        let of = found.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(apart < bound * of, "{dtype:?}: {apart} of {of}");
        let bound = match dtype {
            // A value of NF4 is off by about a tenth of the weights' deviation, and fourteen maps add their errors up:
            // about 0.1 * sqrt(14).
            BaseDtype::Nf4 => 0.4,
            _ => 0.1,
        };
        let apart = difference(&logits(&kept), &wanted);
        assert!(apart < bound * size, "{dtype:?}: {apart} of {size}");
        let is_exact = matches!(dtype, BaseDtype::F32 | BaseDtype::Packed);
        assert_eq!(values == unpacked(&exact), is_exact, "{dtype:?}");
    }
}

/// The adapters are on q_proj and v_proj, PEFT's default, and on all linear maps with rsLoRA and a rank of its own.
#[test]
fn adapters_that_peft_wrote_give_its_logits() {
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/peft_decoders"
    );
    for (name, case, adapted) in [
        ("qwen3", "default", 4),
        ("qwen3", "all_linear", 14),
        ("mistral", "default", 4),
        ("mistral", "all_linear", 14),
    ] {
        let source = std::path::Path::new(fixtures).join(name).join(case);
        let expected = Expected(std::fs::read(source.join("expected.safetensors")).unwrap());
        let sequence = [tokens(expected.ints("input_ids"))];
        let adapter = PeftAdapter::from_folder(&source).unwrap();
        for NamedDevice { name: on, device } in devices() {
            let (model, config) = model(name, &device);
            let plain = floats(model.logits(&batch(&sequence, &device).packed));
            let attached = adapter.attach(model, &config, &[]).unwrap();
            assert_eq!(adapters(&attached).len(), adapted, "{name} {case}");
            let wanted = expected.floats("logits");
            assert!(
                difference(&plain[..wanted.len()], &wanted) > 1e-2,
                "{name} {case}"
            );
            let logits = attached.logits(&batch(&sequence, &device).packed);
            compare(&format!("{on} {name} {case}"), logits, &wanted);
            let merged = attached
                .materialize()
                .logits(&batch(&sequence, &device).packed);
            compare(&format!("{on} {name} {case} merged"), merged, &wanted);
        }
    }
}

#[test]
fn the_published_sizes_have_the_published_numbers_of_parameters() {
    for (name, parameters) in [
        ("smollm2-135m", 134_515_008usize),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("llama-3.2-1b", 1_235_814_400),
    ] {
        let families = mtlora_models::ModelFamilies::builtin();
        let config = match families.published(name).unwrap().unwrap() {
            mtlora_models::ModelConfig::Causal(config) => config,
            mtlora_models::ModelConfig::Classifier(_) => panic!("{name} writes texts"),
        };
        let config: LlamaConfig =
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&config.to_json())
                .map(|map| LlamaConfig::from_file(&mtlora_models::ConfigFile::from_map(map)))
                .unwrap()
                .unwrap();
        let [hidden, inner] = [config.hidden_size, config.intermediate_size];
        let heads = config.num_attention_heads + config.num_key_value_heads;
        let attention = 2 * heads * config.head_dim * hidden;
        let norms = 2 * hidden
            + if name.starts_with("qwen3") {
                2 * config.head_dim
            } else {
                0
            };
        let layer = attention + 3 * hidden * inner + norms;
        let found = config.vocab_size * hidden + config.num_hidden_layers * layer + hidden;
        assert_eq!(found, parameters, "{name}");
    }
}

/// What a row reads after an earlier part of it, in whatever pieces and after however many turns back, gives the logits of
/// reading it at once.
#[test]
fn a_row_that_is_rewound_and_continued_is_read_as_a_whole() {
    for name in MODELS {
        let expected = expected(name);
        let ids = tokens(expected.ints("input_ids"));
        for NamedDevice { name: on, device } in devices() {
            let (model, config) = model(name, &device);
            let most = config.max_tokens().min(150);
            let whole: Vec<u32> = ids.iter().copied().cycle().take(most).collect();
            let mut decoder = CachedDecoder::new(&model, &config, &device);
            // Pieces of one token, of a few, and of more than are read at once.
            let [first, second, third] = [most / 5, most / 5 + 1, most / 3];
            decoder.rewind(0, &whole[..first]).unwrap();
            decoder.rewind(first, &whole[first..second]).unwrap();
            let other: Vec<u32> = whole.iter().rev().copied().take(third - second).collect();
            decoder.rewind(second, &other).unwrap();
            decoder.rewind(second, &whole[second..third]).unwrap();
            let mut found = decoder.rewind(third, &whole[third..most - 1]).unwrap();
            found.extend(decoder.step(&[0], &whole[most - 1..]).unwrap());
            let mut at_once = CachedDecoder::new(&model, &config, &device);
            let mut wanted = at_once.start(&[whole[..most - 1].to_vec()]).unwrap();
            wanted.extend(at_once.start(std::slice::from_ref(&whole)).unwrap());
            let error = difference(&found, &wanted);
            assert!(error < 1e-4, "{on} {name}: {error}");
        }
    }
}
