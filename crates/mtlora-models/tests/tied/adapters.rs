//! Adapters on GPT-2's embeddings and output map.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use mtlora_core::{AdapterForm, AdapterValues, Factors, Fold, MtLoraConfig, Structure, Targets};
use mtlora_models::{
    AdaptedModule, AdapterConfig, CausalLm, Gpt2Config, PeftAdapter, TargetModules,
};
use serde_json::json;

use crate::common::floats;
use crate::support::{
    EMBEDDINGS, OUTPUT, assert_near, batch, both, gpt2, logits, own, read, reversed, sequences,
    tensors, two, with,
};

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

/// An adapter read from a folder in PEFT's format: on the embeddings, on the output map, or on both.
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

/// `weight` with an adapter's update, as PEFT merges it: `W + scale B A` for a linear layer, and with the update
/// transposed for an embedding.
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
fn adapters_on_two_weights_agree_with_pefts_merge() {
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

        // It computes the same when it is merged, written and read back, and combined.
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
    // The configuration does not say how many weights there are; the model does.
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
        // In plain LoRA, the output map has the factors of a linear layer.
        if let Some(head) = plain.modules.get("lm_head") {
            assert!(!head.embedding);
            assert_eq!(head.values.a.shape().to_vec(), [2, 32]);
        }
    }
    // An adapter for one weight and an adapter for two cannot be added.
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
fn an_adapter_on_one_name_of_one_weight_is_refused_with_what_to_do() {
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
    // If the weight itself was trained, PEFT's merge makes two weights of it.
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
        // A base with two weights has a place for it.
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
    // The one weight gets the update once, as in PEFT's merge.
    let expected = merged(
        &tensors("gpt2")[EMBEDDINGS],
        &pair.modules["transformer.wte"],
    );
    let expected = read(gpt2(&with(tensors("gpt2"), EMBEDDINGS, expected), &json!({})).path());
    assert_near(&logits(&attached), &logits(&expected), "a pair");
    // If the two differ, they are not an adapter on one weight.
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

    // If the weight itself was trained, there are both tensors and one name.
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
fn two_weights_train_independently() {
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
    // A token that is in no sequence has no gradient in the embeddings, but its row of the output map has one, since
    // its logit is in the loss.
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
