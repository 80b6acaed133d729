//! GPT-2's embeddings and output map as one weight or two, read and written.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::{Device, TensorData};
use mtlora_core::BaseDtype;
use mtlora_models::{
    CachedDecoder, CausalBatch, CausalLm, Checkpoint, GenerationConfig, Gpt2Config, generate,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::common::floats;
use crate::support::{
    EMBEDDINGS, OUTPUT, Tensors, assert_near, bare, batch, both, config_of, gpt2, logits, named,
    own, read, refused, reversed_logits, sequences, tensors, tied_logits, two, with, write,
};

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

/// `safetensors.torch.save_model` and `huggingface_hub.save_torch_model` name in the metadata the tensor that they
/// left out and the one that they kept.
#[test]
fn metadata_has_no_effect_whatever_it_holds() {
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
    // Metadata that no tool writes, in place of an object of texts.
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
fn the_two_names_may_be_in_different_files() {
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
        // `save_torch_model` writes the metadata into the index, too.
        let index = json!({"metadata": {"total_size": 1, EMBEDDINGS: OUTPUT}, "weight_map": map});
        let index_path = made.path().join("model.safetensors.index.json");
        fs::write(index_path, index.to_string()).unwrap();
        assert_near(&logits(&read(made.path())), &expected, &number.to_string());
    }
}

/// The values are those that transformers computes with the files, which the fixtures' make.py prints.
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
    // Each target becomes the token that has its place in reverse order.
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
            // Read in bf16, it has the same precision as the embeddings.
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
    // The tokens are those of transformers 5.24's GPT2LMHeadModel.generate with the same folder, greedily, without an
    // end token.
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
    // The same with four beams.
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
fn a_saved_model_says_whether_it_has_one_weight_or_two() {
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
