//! GPT-2's token embeddings and output map, one weight or two, in every form in which tools write them; and the word
//! embeddings of encoders with a masked language model's head. What transformers 5.24 gives for each form was looked up
//! with it: it ties the two if the configuration does not say otherwise and the file has one of them, or both and equal,
//! and has two weights where both are there and differ, whatever the configuration says. It takes no notice of metadata.
#![allow(clippy::unwrap_used)]

mod common;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use common::{Expected, difference, floats, folder};
use mtlora_core::{
    AdapterForm, AdapterValues, BaseDtype, Factors, Fold, MtLoraConfig, Structure, Targets,
};
use mtlora_models::{
    AdaptedModule, AdapterConfig, CachedDecoder, CausalBatch, CausalLm, Checkpoint,
    EncoderClassifier, EncoderConfig, GenerationConfig, Gpt2Config, Gpt2Lm, PeftAdapter,
    SequenceClassifier, TargetModules, generate, write_checkpoint,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const EMBEDDINGS: &str = "transformer.wte.weight";
const OUTPUT: &str = "lm_head.weight";

/// Tensors by their names, each with its shape.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(model: &str) -> Tensors {
    let checkpoint = Checkpoint::open(&folder(model)).unwrap();
    let read = |name: &str| (name.to_string(), checkpoint.read_f32(name).unwrap());
    checkpoint.names().map(read).collect()
}

fn named(mut tensors: Tensors, old: &str, new: &str) -> Tensors {
    let tensor = tensors.remove(old).unwrap();
    tensors.insert(new.to_string(), tensor);
    tensors
}

fn with(mut tensors: Tensors, name: &str, tensor: (Vec<usize>, Vec<f32>)) -> Tensors {
    tensors.insert(name.to_string(), tensor);
    tensors
}

/// Without the model's name in front, as a model without a head is written.
fn bare(tensors: Tensors, prefix: &str) -> Tensors {
    let short = |name: String| name.strip_prefix(prefix).unwrap_or(&name).to_string();
    tensors
        .into_iter()
        .map(|(name, one)| (short(name), one))
        .collect()
}

/// The rows in reverse order: as an output map it gives the same logits from the last token to the first.
fn reversed((shape, values): &(Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
    let rows = values.chunks(shape[1]).rev();
    (shape.clone(), rows.flatten().copied().collect())
}

fn write(path: &Path, tensors: &Tensors) {
    let all = tensors.iter().map(|(name, (shape, values))| {
        (
            name.clone(),
            shape.clone(),
            Cow::Borrowed(values.as_slice()),
        )
    });
    write_checkpoint(path, all).unwrap();
}

fn config_of(model: &str, fields: &Value) -> String {
    let text = fs::read_to_string(folder(model).join("config.json")).unwrap();
    let mut map: Map<String, Value> = serde_json::from_str(&text).unwrap();
    map.remove("tie_word_embeddings");
    map.extend(fields.as_object().unwrap().clone());
    Value::Object(map).to_string()
}

/// A model folder with these tensors, and with these fields in the model's configuration.
fn model_folder(model: &str, tensors: &Tensors, fields: &Value) -> TempDir {
    let made = tempfile::tempdir().unwrap();
    fs::write(made.path().join("config.json"), config_of(model, fields)).unwrap();
    write(&made.path().join("model.safetensors"), tensors);
    made
}

fn gpt2(tensors: &Tensors, fields: &Value) -> TempDir {
    model_folder("gpt2", tensors, fields)
}

fn read(folder: &Path) -> CausalLm {
    let config = Gpt2Config::from_folder(folder).unwrap();
    CausalLm::from_folder(folder, &config, &Device::flex()).unwrap()
}

fn refused(folder: &Path) -> String {
    let config = Gpt2Config::from_folder(folder).unwrap();
    let error = CausalLm::from_folder(folder, &config, &Device::flex()).unwrap_err();
    error.to_string()
}

fn expected() -> Expected {
    Expected(fs::read(folder("gpt2").join("expected.safetensors")).unwrap())
}

fn sequences() -> Vec<Vec<u32>> {
    let ids: Vec<u32> = expected()
        .ints("input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect();
    ids.chunks(ids.len() / 3).map(<[u32]>::to_vec).collect()
}

fn batch(sequences: &[Vec<u32>], device: &Device) -> CausalBatch {
    let all = sequences.iter().map(|ids| (ids.as_slice(), 0..ids.len()));
    CausalBatch::new(all, device).unwrap()
}

/// The GPT-2 in it, of which tests see single weights.
fn own(model: &CausalLm) -> &Gpt2Lm {
    model.downcast_ref().unwrap()
}

fn logits(model: &CausalLm) -> Vec<f32> {
    floats(model.logits(&batch(&sequences(), &Device::flex()).packed))
}

/// Transformers' logits of the model with one weight.
fn tied_logits() -> Vec<f32> {
    expected().floats("logits")
}

/// Its logits with the embeddings in reverse order as the output map: the same in reverse order, for each token.
fn reversed_logits() -> Vec<f32> {
    let logits = tied_logits();
    logits
        .chunks(120)
        .flat_map(|row| row.iter().rev().copied())
        .collect()
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    let error = difference(found, expected);
    assert!(error < 1e-4, "{what}: {error}");
}

fn both(tensors: Tensors) -> Tensors {
    let tensor = tensors[EMBEDDINGS].clone();
    with(tensors, OUTPUT, tensor)
}

fn two(tensors: Tensors) -> Tensors {
    let tensor = reversed(&tensors[EMBEDDINGS]);
    with(tensors, OUTPUT, tensor)
}

#[test]
fn one_weight_is_read_by_either_of_its_names() {
    let whole = tensors("gpt2");
    let forms = [
        ("embeddings", whole.clone()),
        ("output map", named(whole.clone(), EMBEDDINGS, OUTPUT)),
        ("both", both(whole.clone())),
        ("bare", bare(whole.clone(), "transformer.")),
        ("bare with both", bare(both(whole.clone()), "transformer.")),
        (
            "bare with the output map",
            bare(named(whole.clone(), EMBEDDINGS, OUTPUT), "transformer."),
        ),
        (
            "only the embeddings bare",
            named(whole, EMBEDDINGS, "wte.weight"),
        ),
    ];
    for (form, tensors) in forms {
        for fields in [
            json!({}),
            json!({"tie_word_embeddings": true}),
            json!({"tie_word_embeddings": null}),
        ] {
            let model = read(gpt2(&tensors, &fields).path());
            assert!(own(&model).lm_head.is_none(), "{form} {fields}");
            assert_near(&logits(&model), &tied_logits(), form);
        }
    }
}

/// `safetensors.torch.save_model` and `huggingface_hub.save_torch_model` name the tensor that they left out, and the one
/// that they kept.
#[test]
fn metadata_changes_nothing_and_may_be_anything() {
    let one = named(tensors("gpt2"), EMBEDDINGS, OUTPUT);
    let path = tempfile::tempdir().unwrap();
    fs::write(
        path.path().join("config.json"),
        config_of("gpt2", &json!({})),
    )
    .unwrap();
    let file = path.path().join("model.safetensors");
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = one
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            (name.clone(), shape.clone(), bytes)
        })
        .collect();
    let views = || {
        bytes.iter().map(|(name, shape, bytes)| {
            (
                name.clone(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        })
    };
    for pairs in [
        vec![(EMBEDDINGS, OUTPUT)],
        vec![("format", "pt"), (EMBEDDINGS, OUTPUT)],
        vec![(OUTPUT, EMBEDDINGS)],
        vec![(EMBEDDINGS, EMBEDDINGS), (OUTPUT, OUTPUT)],
        vec![(EMBEDDINGS, "transformer.wpe.weight")],
        vec![("transformer.ln_f.bias", "nowhere"), ("", "")],
        vec![],
    ] {
        let metadata: HashMap<String, String> = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        safetensors::serialize_to_file(views(), Some(metadata), &file).unwrap();
        assert_near(
            &logits(&read(path.path())),
            &tied_logits(),
            &format!("{pairs:?}"),
        );
    }
    // What no tool writes, in place of an object of texts.
    let whole = fs::read(&file).unwrap();
    let (length, rest) = whole.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    for metadata in [
        json!(null),
        json!(3),
        json!([EMBEDDINGS, OUTPUT]),
        json!({ EMBEDDINGS: 1, OUTPUT: { "a": [null] } }),
        json!({ EMBEDDINGS: "x".repeat(100_000) }),
    ] {
        header.insert("__metadata__".to_string(), metadata.clone());
        let text = Value::Object(header.clone()).to_string();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(data);
        fs::write(&file, bytes).unwrap();
        assert_near(
            &logits(&read(path.path())),
            &tied_logits(),
            &brief(&metadata),
        );
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

#[test]
fn parts_may_hold_the_two_names_apart() {
    let whole = tensors("gpt2");
    let forms = [
        (named(whole.clone(), EMBEDDINGS, OUTPUT), tied_logits()),
        (both(whole.clone()), tied_logits()),
        (two(whole.clone()), reversed_logits()),
        (bare(both(whole), "transformer."), tied_logits()),
    ];
    for (number, (tensors, expected)) in forms.into_iter().enumerate() {
        let made = tempfile::tempdir().unwrap();
        fs::write(
            made.path().join("config.json"),
            config_of("gpt2", &json!({})),
        )
        .unwrap();
        let mut map = Map::new();
        let (first, second): (Tensors, Tensors) =
            tensors.into_iter().partition(|(name, _)| name != OUTPUT);
        for (name, part) in [("a.safetensors", first), ("b.safetensors", second)] {
            map.extend(part.keys().map(|tensor| (tensor.clone(), json!(name))));
            write(&made.path().join(name), &part);
        }
        // The index has the metadata, too, where `save_torch_model` writes it.
        let index = json!({"metadata": {"total_size": 1, EMBEDDINGS: OUTPUT}, "weight_map": map});
        let index_path = made.path().join("model.safetensors.index.json");
        fs::write(index_path, index.to_string()).unwrap();
        assert_near(&logits(&read(made.path())), &expected, &number.to_string());
    }
}

/// The values are those that the fixtures' make.py prints: transformers' for the files.
#[test]
fn pickles_have_one_weight_or_two() {
    let fixtures = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/pickle/gpt2"
    ));
    let one = [
        0.817_034_6,
        -0.652_397_3,
        -0.024_525_95,
        -0.069_652_74,
        1.070_285_2,
        0.051_419_23,
    ];
    let mut other = one;
    other.reverse();
    for (form, expected) in [("output", one), ("both", one), ("two", other)] {
        for fields in ["true", "false"] {
            let made = tempfile::tempdir().unwrap();
            let text = fs::read_to_string(fixtures.join("config.json")).unwrap();
            let text = text.replace(
                "\"tie_word_embeddings\": true",
                &format!("\"tie_word_embeddings\": {fields}"),
            );
            fs::write(made.path().join("config.json"), text).unwrap();
            let file = made.path().join("pytorch_model.bin");
            fs::copy(fixtures.join(format!("{form}.bin")), file).unwrap();
            if fields == "false" && form == "output" {
                assert!(refused(made.path()).contains("`transformer.wte.weight`"));
                continue;
            }
            let model = read(made.path());
            assert_eq!(
                own(&model).lm_head.is_some(),
                form == "two" || fields == "false"
            );
            let all = floats(model.logits(&batch(&[vec![1, 2, 3]], &Device::flex()).packed));
            assert_near(&all[all.len() - 6..], &expected, form);
        }
    }
}

#[test]
fn an_output_map_of_its_own_is_used_whatever_the_configuration_says() {
    let device = Device::flex();
    let sequences = sequences();
    let whole = tensors("gpt2");
    let tied = read(gpt2(&whole, &json!({})).path());
    // Of each target the token that has its place in reverse order.
    let mut turned = batch(&sequences, &device);
    let targets: Vec<i32> = turned.targets.clone().into_data().iter::<i32>().collect();
    let targets: Vec<i32> = targets.into_iter().map(|id| 119 - id).collect();
    turned.targets = burn::tensor::Tensor::from_data(TensorData::from(targets.as_slice()), &device);
    let loss_of = |model: &CausalLm, batch: &CausalBatch| {
        model
            .loss(batch, 0.1)
            .into_data()
            .iter::<f32>()
            .next()
            .unwrap()
    };
    for tensors in [two(whole.clone()), bare(two(whole), "transformer.")] {
        for fields in [
            json!({}),
            json!({"tie_word_embeddings": true}),
            json!({"tie_word_embeddings": false}),
        ] {
            let made = gpt2(&tensors, &fields);
            let model = read(made.path());
            assert_near(&logits(&model), &reversed_logits(), &fields.to_string());
            let [found, expected] = [
                loss_of(&model, &turned),
                loss_of(&tied, &batch(&sequences, &device)),
            ];
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
            // Frozen and rounded, it is an output map all the same: as the embeddings are in that precision.
            let config = Gpt2Config::from_folder(made.path()).unwrap();
            let rounded =
                CausalLm::from_folder_in(BaseDtype::Bf16, made.path(), &config, &device).unwrap();
            let lm_head = own(&rounded).lm_head.as_ref().unwrap().weight.val();
            assert_eq!(
                lm_head.dtype(),
                own(&rounded).transformer.wte.weight.val().dtype()
            );
        }
    }
    // Transformers 5.24: GPT2LMHeadModel.generate on the same folder, greedily, without an end token.
    let made = gpt2(&two(tensors("gpt2")), &json!({}));
    let (model, config) = (
        read(made.path()),
        Gpt2Config::from_folder(made.path()).unwrap(),
    );
    let settings = GenerationConfig {
        max_new_tokens: 24,
        num_beams: 1,
        length_penalty: 1.0,
        no_repeat_ngram_size: 0,
        eos_token_ids: Vec::new(),
        ..GenerationConfig::default()
    };
    let prompts = [vec![34, 71, 56, 108, 42, 106]];
    let mut decoder = CachedDecoder::new(&model, &config, &device);
    let found = generate(&mut decoder, &prompts, &settings, &mut |_| ()).unwrap();
    assert_eq!(
        found[0][0].tokens,
        [
            88, 114, 85, 88, 116, 116, 37, 116, 61, 37, 116, 88, 88, 61, 78, 116, 61, 0, 55, 88,
            63, 114, 12, 18
        ]
    );
    // With beams.
    let settings = GenerationConfig {
        num_beams: 4,
        ..settings
    };
    let found = generate(&mut decoder, &prompts, &settings, &mut |_| ()).unwrap();
    assert_eq!(
        found[0][0].tokens,
        [
            88, 114, 88, 88, 116, 12, 18, 116, 12, 116, 116, 78, 104, 78, 78, 78, 61, 78, 61, 44,
            50, 44, 50, 116
        ]
    );
}

#[test]
fn what_is_written_says_what_the_model_is() {
    let whole = tensors("gpt2");
    let tied = [
        whole.clone(),
        named(whole.clone(), EMBEDDINGS, OUTPUT),
        both(whole.clone()),
    ];
    let apart = [
        (two(whole.clone()), json!({})),
        (two(whole.clone()), json!({"tie_word_embeddings": false})),
        (both(whole), json!({"tie_word_embeddings": false})),
    ];
    let all = tied.into_iter().map(|tensors| (tensors, json!({}), true));
    for (tensors, fields, is_tied) in all.chain(
        apart
            .into_iter()
            .map(|(tensors, fields)| (tensors, fields, false)),
    ) {
        let made = gpt2(&tensors, &fields);
        let (model, config) = (
            read(made.path()),
            Gpt2Config::from_folder(made.path()).unwrap(),
        );
        let before = logits(&model);
        let out = tempfile::tempdir().unwrap();
        model.save(out.path(), &config).unwrap();
        let written = Checkpoint::open(out.path()).unwrap();
        assert!(written.contains(EMBEDDINGS));
        assert_eq!(written.contains(OUTPUT), !is_tied);
        let config = Gpt2Config::from_folder(out.path()).unwrap();
        assert_eq!(config.tie_word_embeddings, is_tied);
        assert_eq!(logits(&read(out.path())), before);
    }
    let fresh = |tie: bool| {
        let made = gpt2(&tensors("gpt2"), &json!({"tie_word_embeddings": tie}));
        let config = Gpt2Config::from_folder(made.path()).unwrap();
        let model = CausalLm::fresh(&config, 1, &Device::flex()).unwrap();
        own(&model).lm_head.clone()
    };
    assert!(fresh(true).is_none());
    let map = fresh(false).unwrap().weight.val().into_data();
    assert!(map.iter::<f32>().any(|value| value != 0.0));
}

#[test]
fn a_missing_or_damaged_weight_is_refused_by_name() {
    let whole = tensors("gpt2");
    let apart = json!({"tie_word_embeddings": false});
    let mut neither = whole.clone();
    neither.remove(EMBEDDINGS);
    let (shape, mut values) = whole[EMBEDDINGS].clone();
    let short = (vec![shape[0] - 1, shape[1]], values[shape[1]..].to_vec());
    values[5] = f32::NAN;
    let with_output = |tensor| with(whole.clone(), OUTPUT, tensor);
    for (tensors, fields, part) in [
        (
            neither.clone(),
            json!({}),
            "1 tensor is missing: `transformer.wte.weight`",
        ),
        (
            whole.clone(),
            apart.clone(),
            "1 tensor is missing: `lm_head.weight`",
        ),
        (
            named(whole.clone(), EMBEDDINGS, OUTPUT),
            apart,
            "1 tensor is missing: `transformer.wte.weight`",
        ),
        (
            with(neither, OUTPUT, short.clone()),
            json!({}),
            "tensor `lm_head.weight` has shape [119, 32], but config.json asks for [120, 32]",
        ),
        (
            with_output(short),
            json!({}),
            "tensor `lm_head.weight` has shape [119, 32], but config.json asks for [120, 32]",
        ),
        (
            with_output((shape, values)),
            json!({}),
            "tensor `lm_head.weight` holds NaN at element 5",
        ),
        (
            with(whole.clone(), "wte.weight", whole[EMBEDDINGS].clone()),
            json!({}),
            "1 tensor is unexpected: `wte.weight`",
        ),
    ] {
        let said = refused(gpt2(&tensors, &fields).path());
        assert!(said.contains(part), "{said}");
    }
}

/// A plain LoRA of rank 2 on one module, by the shape that PEFT gives its factors.
fn factors([a, b]: [[usize; 2]; 2], embedding: bool, salt: usize) -> AdaptedModule {
    let pattern = |[rows, columns]: [usize; 2], salt: usize| {
        let values: Vec<f32> = (0..rows * columns)
            .map(|at| ((at * 37 + salt * 11) % 23) as f32 / 115.0 - 0.1)
            .collect();
        TensorData::new(values, [rows, columns])
    };
    AdaptedModule {
        values: AdapterValues {
            a: pattern(a, salt),
            b: pattern(b, salt + 1),
            further: Factors::none(),
            form: AdapterForm::new(Structure::Lora, 2.0),
        },
        embedding,
    }
}

/// An adapter as PEFT's folder has it: on the embeddings, on the output map, or on both.
fn pefts(names: &[&str]) -> PeftAdapter {
    let modules: BTreeMap<String, AdaptedModule> = names
        .iter()
        .map(|name| {
            let module = match *name {
                "lm_head" => factors([[2, 32], [120, 2]], false, 1),
                _ => factors([[2, 120], [32, 2]], true, 5),
            };
            (name.to_string(), module)
        })
        .collect();
    let targets = TargetModules::Names(names.iter().map(ToString::to_string).collect());
    let config = AdapterConfig::new(2, 4.0, targets);
    let out = tempfile::tempdir().unwrap();
    PeftAdapter::new(config, modules, BTreeMap::new())
        .write(out.path())
        .unwrap();
    PeftAdapter::from_folder(out.path()).unwrap()
}

/// `weight` with an adapter's update, as PEFT merges it: `W + scale B A` of a linear layer, its transpose of an
/// embedding.
fn merged(
    (shape, weight): &(Vec<usize>, Vec<f32>),
    module: &AdaptedModule,
) -> (Vec<usize>, Vec<f32>) {
    let read = |data: &TensorData| {
        (
            data.shape().to_vec(),
            data.iter::<f32>().collect::<Vec<f32>>(),
        )
    };
    let ((a_shape, a), (_, b)) = (read(&module.values.a), read(&module.values.b));
    let (rank, inputs) = (a_shape[0], a_shape[1]);
    let update = |output: usize, input: usize| {
        let sum: f32 = (0..rank)
            .map(|at| b[output * rank + at] * a[at * inputs + input])
            .sum();
        module.values.form.scale as f32 * sum
    };
    let values = weight.iter().enumerate().map(|(at, value)| {
        let (row, column) = (at / shape[1], at % shape[1]);
        let added = if module.embedding {
            update(column, row)
        } else {
            update(row, column)
        };
        value + added
    });
    (shape.clone(), values.collect())
}

#[test]
fn adapters_on_two_weights_are_pefts() {
    let base = two(tensors("gpt2"));
    for names in [
        &["transformer.wte"][..],
        &["lm_head"],
        &["lm_head", "transformer.wte"],
    ] {
        let adapter = pefts(names);
        let made = gpt2(&base, &json!({"tie_word_embeddings": false}));
        let config = Gpt2Config::from_folder(made.path()).unwrap();
        let expected = names.iter().fold(base.clone(), |all, name| {
            let tensor = merged(&base[&format!("{name}.weight")], &adapter.modules[*name]);
            with(all, &format!("{name}.weight"), tensor)
        });
        let expected = logits(&read(gpt2(&expected, &json!({})).path()));
        let attached = adapter.attach(read(made.path()), &config, &[]).unwrap();
        assert_near(&logits(&attached), &expected, &format!("{names:?}"));

        // Folded in and written, and as it goes on training and back to PEFT.
        let out = tempfile::tempdir().unwrap();
        attached.clone().save(out.path(), &config).unwrap();
        assert_near(&logits(&read(out.path())), &expected, "merged");
        let again = PeftAdapter::of(&attached, &config, "base", false).unwrap();
        let files = tempfile::tempdir().unwrap();
        again.write(files.path()).unwrap();
        let ours = PeftAdapter::from_folder(files.path()).unwrap();
        let attached = ours.attach(read(made.path()), &config, &[]).unwrap();
        assert_near(&logits(&attached), &expected, "its own folder");
        let folded = ours.fold(Fold::A).unwrap();
        assert_eq!(folded.modules, adapter.modules, "{names:?}");
        assert_eq!(folded.config.peft_type, mtlora_models::PeftType::Lora);
        let sum = PeftAdapter::combine(&[(0.25, ours), (0.75, adapter)], None, None).unwrap();
        let attached = sum.adapter.attach(read(made.path()), &config, &[]).unwrap();
        assert_near(&logits(&attached), &expected, "combined");
        assert_eq!(sum.adapter.modules.len(), names.len());
    }
}

#[test]
fn an_adapter_with_t_knows_whether_its_base_has_one_weight() {
    let attach = |folder: &Path, target: &str| {
        MtLoraConfig::new(Structure::Shim)
            .with_rank(2)
            .with_target_modules(Targets::names([target]))
            .attach(read(folder))
            .unwrap()
    };
    let one = gpt2(&tensors("gpt2"), &json!({}));
    // The configuration is silent: the model is what counts.
    let apart = gpt2(&two(tensors("gpt2")), &json!({}));
    let config = Gpt2Config::from_folder(one.path()).unwrap();
    for (folder, other, target, pefts) in [
        (&one, &apart, "wte", vec!["lm_head", "transformer.wte"]),
        (&apart, &one, "wte", vec!["transformer.wte"]),
        (&apart, &one, "lm_head", vec!["lm_head"]),
    ] {
        let model = attach(folder.path(), target);
        let files = tempfile::tempdir().unwrap();
        PeftAdapter::of(&model, &config, "base", false)
            .unwrap()
            .write(files.path())
            .unwrap();
        let ours = PeftAdapter::from_folder(files.path()).unwrap();
        let again = ours.attach(read(folder.path()), &config, &[]).unwrap();
        assert_eq!(logits(&again), logits(&model), "{target}");
        let error = ours.attach(read(other.path()), &config, &[]).unwrap_err();
        assert!(error.to_string().contains("this model has"), "{error}");
        let plain = ours.fold(Fold::A).unwrap();
        assert_eq!(plain.modules.keys().collect::<Vec<_>>(), pefts, "{target}");
        let again = plain.attach(read(folder.path()), &config, &[]).unwrap();
        assert_near(&logits(&again), &logits(&model), target);
        // The head's factors are a linear layer's there.
        if let Some(head) = plain.modules.get("lm_head") {
            assert!(!head.embedding);
            assert_eq!(head.values.a.shape().to_vec(), [2, 32]);
        }
    }
    // A sum of one for one weight and one for two would be neither.
    let parts = [one.path(), apart.path()].map(|folder| {
        let model = attach(folder, "wte");
        (
            1.0,
            PeftAdapter::of(&model, &config, "base", false).unwrap(),
        )
    });
    let error = PeftAdapter::combine(&parts, None, None).unwrap_err();
    assert!(error.to_string().contains("as one weight"), "{error}");
    // "All linear layers" are not the output map, as in PEFT.
    let all = MtLoraConfig::new(Structure::Lora)
        .with_rank(2)
        .attach(read(apart.path()))
        .unwrap();
    let own = PeftAdapter::of(&all, &config, "base", false).unwrap();
    assert!(
        own.modules
            .keys()
            .all(|name| name.starts_with("transformer.h."))
    );
}

#[test]
fn an_adapter_on_one_name_of_one_weight_is_refused_with_a_way_that_works() {
    let made = gpt2(&tensors("gpt2"), &json!({}));
    let config = Gpt2Config::from_folder(made.path()).unwrap();
    // `wte` is the name in an adapter of a model without a head.
    for names in [
        &["transformer.wte"][..],
        &["lm_head"],
        &["lm_head", "transformer.wte"],
        &["wte"],
    ] {
        let error = pefts(names)
            .attach(read(made.path()), &config, &[])
            .unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("base.config.tie_word_embeddings = False"),
            "{said}"
        );
        assert!(said.contains("tokenizer files"), "{said}");
    }
    // A weight that was trained itself: PEFT's merge makes two of the one.
    for name in [EMBEDDINGS, OUTPUT] {
        let mut adapter = pefts(&["transformer.wte"]);
        adapter.modules = BTreeMap::from([(
            "transformer.h.0.attn.c_attn".to_string(),
            factors([[2, 32], [96, 2]], false, 1),
        )]);
        adapter.config.target_modules = Some(TargetModules::Names(vec!["h.0.attn.c_attn".into()]));
        adapter.config.modules_to_save = vec![name.trim_end_matches(".weight").to_string()];
        let (shape, values) = reversed(&tensors("gpt2")[EMBEDDINGS]);
        adapter
            .saved
            .insert(name.to_string(), TensorData::new(values, shape));
        let error = adapter.attach(read(made.path()), &config, &[]).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("merge_and_unload") && said.contains("tokenizer files"),
            "{said}"
        );
        // On a base with two weights it has its place.
        let apart = gpt2(
            &both(tensors("gpt2")),
            &json!({"tie_word_embeddings": false}),
        );
        let model = adapter.attach(read(apart.path()), &config, &[]).unwrap();
        let of = |name| match name {
            OUTPUT => own(&model)
                .lm_head
                .as_ref()
                .unwrap()
                .weight
                .val()
                .into_data(),
            _ => own(&model).transformer.wte.weight.val().into_data(),
        };
        assert_eq!(of(name), adapter.saved[name]);
        let other = if name == OUTPUT { EMBEDDINGS } else { OUTPUT };
        assert_ne!(of(other), adapter.saved[name]);
    }
}

/// What PEFT 0.21.2 writes with `ensure_weight_tying=True`: only the embeddings are named, and both have tensors.
#[test]
fn adapters_that_peft_tied_are_read() {
    let made = gpt2(&tensors("gpt2"), &json!({}));
    let config = Gpt2Config::from_folder(made.path()).unwrap();
    let mut adapter = pefts(&["transformer.wte"]);
    adapter.config.peft_type = mtlora_models::PeftType::MtLora;
    adapter.config.tie_word_embeddings = true;
    let mut pair = adapter.fold(Fold::A).unwrap();
    assert_eq!(pair.modules.len(), 2);
    let names = vec!["transformer.wte".to_string(), "wte".to_string()];
    pair.config.target_modules = Some(TargetModules::Names(names));
    let files = tempfile::tempdir().unwrap();
    pair.write(files.path()).unwrap();
    let read_back = PeftAdapter::from_folder(files.path()).unwrap();
    let attached = read_back.attach(read(made.path()), &config, &[]).unwrap();
    // The one weight has the one update, as PEFT merges it.
    let expected = merged(
        &tensors("gpt2")[EMBEDDINGS],
        &pair.modules["transformer.wte"],
    );
    let expected = read(gpt2(&with(tensors("gpt2"), EMBEDDINGS, expected), &json!({})).path());
    assert_near(&logits(&attached), &logits(&expected), "a pair");
    // Not the same on both: no adapter of one weight.
    let changed = pair.modules.get_mut("lm_head").unwrap();
    changed.values.form.scale *= 2.0;
    pair.config.alpha_pattern = vec![("lm_head".to_string(), 8.0)];
    pair.write(files.path()).unwrap();
    let error = PeftAdapter::from_folder(files.path())
        .unwrap()
        .attach(read(made.path()), &config, &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("tie_word_embeddings = False"),
        "{error}"
    );

    // Trained themselves: both tensors, and one name.
    let name = "transformer.h.0.attn.c_attn";
    let modules = BTreeMap::from([(name.to_string(), factors([[2, 32], [96, 2]], false, 1))]);
    let config_of = |saved: &str| AdapterConfig {
        modules_to_save: vec![saved.to_string()],
        ..AdapterConfig::new(2, 4.0, TargetModules::Names(vec![name.to_string()]))
    };
    let (shape, values) = reversed(&tensors("gpt2")[EMBEDDINGS]);
    let tensor = TensorData::new(values, shape);
    let saved = [EMBEDDINGS, OUTPUT].map(|name| (name.to_string(), tensor.clone()));
    let trained = PeftAdapter::new(
        config_of("transformer.wte"),
        modules.clone(),
        BTreeMap::from(saved.clone()),
    );
    trained.write(files.path()).unwrap();
    let error = PeftAdapter::from_folder(files.path())
        .unwrap()
        .attach(read(made.path()), &config, &[])
        .unwrap_err();
    assert!(error.to_string().contains("merge_and_unload"), "{error}");
    let stray = PeftAdapter::new(config_of("ln_f"), modules, BTreeMap::from(saved));
    stray.write(files.path()).unwrap();
    let error = PeftAdapter::from_folder(files.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("brings its base's tensor `lm_head.weight`"),
        "{error}"
    );
}

#[test]
fn two_weights_train_apart() {
    let made = gpt2(&two(tensors("gpt2")), &json!({}));
    let config = Gpt2Config::from_folder(made.path()).unwrap();
    let device = Device::flex().autodiff();
    let model = CausalLm::from_folder(made.path(), &config, &device).unwrap();
    let grads = model.loss(&batch(&sequences(), &device), 0.0).backward();
    let head = own(&model)
        .lm_head
        .as_ref()
        .unwrap()
        .weight
        .val()
        .grad(&grads)
        .unwrap();
    let embeddings = own(&model)
        .transformer
        .wte
        .weight
        .val()
        .grad(&grads)
        .unwrap();
    // A token that no sequence has moves no embedding, and its logit moves its row of the output map.
    let unseen = (0..120)
        .find(|id| !sequences().concat().contains(id))
        .unwrap() as usize;
    let largest = |rows: burn::tensor::Tensor<2>| {
        let row = rows.slice([unseen..unseen + 1, 0..32]);
        floats(row).into_iter().map(f32::abs).fold(0.0, f32::max)
    };
    assert_eq!(largest(embeddings), 0.0);
    assert!(largest(head) > 1e-6);
    assert_eq!(
        model.num_params(),
        tensors("gpt2")
            .values()
            .map(|(_, v)| v.len())
            .sum::<usize>()
            + 120 * 32
    );
}

fn classifier(folder: &Path) -> Result<SequenceClassifier, String> {
    let config = EncoderConfig::from_folder(folder).unwrap();
    let read = SequenceClassifier::from_folder(folder, &config, 0, &Device::flex());
    read.map(|(model, _)| model)
        .map_err(|error| error.to_string())
}

fn words(model: &SequenceClassifier) -> Vec<f32> {
    let model: &EncoderClassifier = model.downcast_ref().unwrap();
    floats(model.base.embeddings.word_embeddings.weight.val())
}

/// `save_model` keeps of a RobertaForMaskedLM's one weight the name `lm_head.decoder.weight`, and of a BertForMaskedLM's
/// that of the embeddings.
#[test]
fn an_encoders_word_embeddings_are_read_by_the_name_in_the_masked_lm_head() {
    for (model, decoder) in [
        ("roberta", "lm_head.decoder.weight"),
        ("bert", "cls.predictions.decoder.weight"),
    ] {
        let (prefix, whole) = (format!("{model}."), tensors(model));
        let embeddings = format!("{prefix}embeddings.word_embeddings.weight");
        let tensor = whole[&embeddings].clone();
        let bias = (vec![tensor.0[0]], vec![0.5; tensor.0[0]]);
        let head = decoder.trim_end_matches("decoder.weight");
        let headed = |tensors: Tensors| {
            let tensors = with(tensors, &format!("{head}bias"), bias.clone());
            with(tensors, &format!("{head}decoder.bias"), bias.clone())
        };
        let one = named(headed(whole.clone()), &embeddings, decoder);
        let other = with(headed(whole.clone()), decoder, reversed(&tensor));
        for (form, tensors) in [
            ("plain", whole.clone()),
            ("one name", one.clone()),
            (
                "both names",
                with(headed(whole.clone()), decoder, tensor.clone()),
            ),
            // A classifier ignores the masked language model's head, so its output weight does not matter.
            ("two weights", other.clone()),
            ("bare", bare(headed(whole.clone()), &prefix)),
            ("bare, one name", bare(one.clone(), &prefix)),
        ] {
            let made = model_folder(model, &tensors, &json!({}));
            let read = classifier(made.path()).unwrap();
            assert_eq!(words(&read), tensor.1, "{model} {form}");
        }
        let apart = json!({"tie_word_embeddings": false});
        let read = classifier(model_folder(model, &other, &apart).path()).unwrap();
        assert_eq!(words(&read), tensor.1);
        let said = classifier(model_folder(model, &one, &apart).path()).unwrap_err();
        assert!(
            said.contains(&format!("1 tensor is missing: `{embeddings}`")),
            "{said}"
        );
    }
}
