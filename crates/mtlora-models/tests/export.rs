//! An adapter that is written for a program computes, by that program's rules, what it computed here.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use common::{Expected, floats, folder};
use mtlora_core::{AdapterForm, AdapterMethod, AdapterValues, Factors, Fold, Structure, devices};
use mtlora_models::{
    AdaptedModule, AdapterConfig, CausalConfig, CausalLm, Checkpoint, ExportError, ExportOptions,
    PackedBatch, PeftAdapter, Server, TargetModules, export_adapter,
};
use serde_json::{Value, json};

/// Numbers between -1 and 1.
fn pattern(rows: usize, columns: usize, seed: usize) -> TensorData {
    let values: Vec<f32> = (0..rows * columns)
        .map(|at| ((at * 37 + seed * 11) % 23) as f32 / 11.5 - 1.0)
        .collect();
    TensorData::new(values, [rows, columns])
}

/// Modules of the first layer and one of the second, with different ranks and scales, and with a T.
fn adapter() -> PeftAdapter {
    let mut modules = BTreeMap::new();
    for (seed, (name, [output, input], rank)) in [
        ("0.self_attn.q_proj", [64, 48], 3),
        ("0.self_attn.k_proj", [32, 48], 4),
        ("0.self_attn.o_proj", [48, 64], 4),
        ("0.mlp.down_proj", [48, 96], 2),
        ("1.self_attn.q_proj", [64, 48], 4),
    ]
    .into_iter()
    .enumerate()
    {
        let values = AdapterValues {
            a: pattern(rank, input, seed),
            b: pattern(output, rank, seed + 5),
            further: Factors::from_iter([("c", pattern(rank, rank, seed + 9))]),
            form: AdapterForm::new(
                AdapterMethod::from(Structure::Shim),
                0.01 * (seed + 1) as f64,
            ),
        };
        let embedding = false;
        modules.insert(
            format!("model.layers.{name}"),
            AdaptedModule { values, embedding },
        );
    }
    let targets = TargetModules::Names(modules.keys().cloned().collect());
    let mut config = AdapterConfig::new(4, 8.0, targets);
    config.use_rslora = true;
    config.task_type = Some("CAUSAL_LM".to_string());
    config.base_model_name_or_path = Some("somebody/qwen3".to_string());
    PeftAdapter::new(config, modules, BTreeMap::new())
}

fn options() -> ExportOptions {
    ExportOptions {
        fold: Fold::Balanced,
        base: Some(CausalConfig::from_folder(&folder("qwen3")).unwrap()),
        base_name: None,
    }
}

/// The dense update of a module: `[out, in]`, row after row.
fn delta(module: &AdaptedModule) -> Vec<f32> {
    floats(module.values.to_device(&devices()[0].device).delta())
}

fn close(found: &[f32], wanted: &[f32]) {
    let size = wanted
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(
            (found - wanted).abs() <= 1e-5 * size,
            "{found} for {wanted}"
        );
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The logits of the model with an adapter on it.
fn logits(adapter: &PeftAdapter) -> Vec<f32> {
    let folder = folder("qwen3");
    let device = &devices()[0].device;
    let config = CausalConfig::from_folder(&folder).unwrap();
    let model = CausalLm::from_folder(&folder, &config, device).unwrap();
    let model = adapter.attach(model, &config, &[]).unwrap();
    let expected = Expected(std::fs::read(folder.join("expected.safetensors")).unwrap());
    let prompt: Vec<u32> = expected
        .ints("prompt")
        .iter()
        .map(|id| *id as u32)
        .collect();
    let tokens = mtlora_models::Tokens {
        type_ids: vec![0; prompt.len()],
        ids: prompt,
    };
    floats(model.logits(&PackedBatch::new(&[&tokens], &config, device).unwrap()))
}

#[test]
fn for_peft_and_vllm_it_is_the_same_adapter_with_the_scale_one() {
    let adapter = adapter();
    let wanted = logits(&adapter);
    for server in [Server::Peft, Server::Vllm] {
        let out = tempfile::tempdir().unwrap();
        let written = export_adapter(&adapter, server, &options(), out.path()).unwrap();
        assert_eq!((written.rank, written.modules), (4, 5));
        let plain = PeftAdapter::from_folder(out.path()).unwrap();
        close(&logits(&plain), &wanted);
        let config = read_json(&out.path().join("adapter_config.json"));
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["use_rslora"], false);
        assert_eq!(config["base_model_name_or_path"], "somebody/qwen3");
        for module in plain.modules.values() {
            assert_eq!(module.values.form.scale, 1.0);
        }
    }
}

/// The rules of vLLM and mistral.rs for an adapter's folder.
#[test]
fn vllm_and_mistral_rs_accept_the_folder() {
    let out = tempfile::tempdir().unwrap();
    export_adapter(&adapter(), Server::Vllm, &options(), out.path()).unwrap();
    let config = read_json(&out.path().join("adapter_config.json"));
    // vllm/lora/peft_helper.py, PEFTHelper: these are required, the scale is alpha / r whatever the patterns say, and
    // `_validate_features` refuses the others.
    let rank = config["r"].as_u64().unwrap();
    assert_eq!(config["lora_alpha"].as_f64().unwrap(), rank as f64);
    let targets: Vec<&str> = config["target_modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    assert!(config["modules_to_save"].is_null() && config["use_dora"] == false);
    assert_eq!(config["bias"], "none");
    // mistralrs-quant/src/lora/mod.rs, LoraConfig::validate_dynamic.
    assert_eq!(config["peft_type"], "LORA");
    for pattern in ["rank_pattern", "alpha_pattern"] {
        assert!(
            config
                .get(pattern)
                .is_none_or(|map| map.as_object().unwrap().is_empty())
        );
    }
    assert!(
        config
            .get("init_lora_weights")
            .is_none_or(|value| value.is_null() || value.is_boolean())
    );
    for field in ["lora_bias", "use_qalora", "ensure_weight_tying"] {
        assert!(
            config.get(field).is_none_or(|value| value == false),
            "{field}"
        );
    }
    for field in [
        "alora_invocation_tokens",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
        "megatron_config",
    ] {
        assert!(config.get(field).is_none_or(Value::is_null), "{field}");
    }
    let file = Checkpoint::open_file(&out.path().join("adapter_model.safetensors")).unwrap();
    // vllm/model_executor/models/qwen3.py and llama.py: the linear maps, by which LoRA is looked up
    // (`expected_lora_modules` in vllm/lora/lora_model.py).
    let known = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let mut pairs = BTreeMap::new();
    for name in file.names() {
        // vllm/lora/utils.py, parse_fine_tuned_lora_name; mistralrs-quant/src/lora/dynamic/loader.rs, pair_for_site.
        let module = name.strip_prefix("base_model.model.").unwrap();
        let (module, factor) = module
            .strip_suffix(".weight")
            .unwrap()
            .rsplit_once('.')
            .unwrap();
        assert!(["lora_A", "lora_B"].contains(&factor), "{name}");
        let last = module.rsplit('.').next().unwrap();
        assert!(known.contains(&last) && targets.contains(&module), "{name}");
        let (shape, _) = file.read_f32(name).unwrap();
        // loader.rs, tensor_elements_after_shard: the rank is the configuration's.
        let side = if factor == "lora_A" {
            shape[0]
        } else {
            shape[1]
        };
        assert_eq!(side as u64, rank, "{name}");
        *pairs.entry(module.to_string()).or_insert(0) += 1;
    }
    assert!(pairs.values().all(|factors| *factors == 2));
    assert_eq!(pairs.len(), 5);
}

/// mlx_lm/tuner/lora.py, LoRALinear: `scale * (x a) b`.
#[test]
fn mlx_computes_the_same_update() {
    let out = tempfile::tempdir().unwrap();
    let adapter = adapter();
    export_adapter(&adapter, Server::Mlx, &options(), out.path()).unwrap();
    let config = read_json(&out.path().join("adapter_config.json"));
    assert_eq!(config["fine_tune_type"], "lora");
    assert_eq!(config["num_layers"], -1);
    let parameters = &config["lora_parameters"];
    let keys = json!([
        "mlp.down_proj",
        "self_attn.k_proj",
        "self_attn.o_proj",
        "self_attn.q_proj"
    ]);
    assert_eq!(parameters["keys"], keys);
    assert_eq!(
        (&parameters["rank"], &parameters["scale"]),
        (&json!(4), &json!(1.0))
    );
    let file = Checkpoint::open_file(&out.path().join("adapters.safetensors")).unwrap();
    assert_eq!(file.names().count(), 10);
    for (name, module) in &adapter.modules {
        let (a_sides, a) = file.read_f32(&format!("{name}.lora_a")).unwrap();
        let (b_sides, b) = file.read_f32(&format!("{name}.lora_b")).unwrap();
        let ([input, rank], [b_rank, output]) =
            ([a_sides[0], a_sides[1]], [b_sides[0], b_sides[1]]);
        assert_eq!((rank, b_rank), (4, 4));
        // `[out, in]`
        let mut update = Vec::new();
        for row in 0..output {
            for column in 0..input {
                update.push(
                    (0..rank)
                        .map(|k| a[column * rank + k] * b[k * output + row])
                        .sum(),
                );
            }
        }
        close(&update, &delta(module));
    }
}

#[test]
fn ollama_gets_a_modelfile() {
    let out = tempfile::tempdir().unwrap();
    let written = export_adapter(&adapter(), Server::Ollama, &options(), out.path()).unwrap();
    let text = std::fs::read_to_string(&written.files[0]).unwrap();
    assert_eq!(text, "FROM somebody/qwen3\nADAPTER ./adapter.gguf\n");
    assert!(out.path().join("adapter.gguf").exists());
}

#[test]
fn what_a_program_cannot_carry_is_refused_by_name() {
    let refused =
        |server: Server, change: &dyn Fn(&mut PeftAdapter, &mut ExportOptions)| -> ExportError {
            let (mut adapter, mut options) = (adapter(), options());
            change(&mut adapter, &mut options);
            let out = tempfile::tempdir().unwrap();
            let folder = out.path().join("new");
            let error = export_adapter(&adapter, server, &options, &folder).unwrap_err();
            assert!(!folder.exists());
            error
        };
    for server in [Server::Vllm, Server::LlamaCpp, Server::Ollama, Server::Mlx] {
        let error = refused(server, &|adapter, _| {
            adapter
                .saved
                .insert("score.weight".to_string(), pattern(2, 48, 1));
        });
        assert!(error.to_string().contains("score.weight"), "{error}");
        let error = refused(server, &|adapter, _| {
            let mut module = adapter.modules["model.layers.0.self_attn.q_proj"].clone();
            module.embedding = true;
            adapter
                .modules
                .insert("model.embed_tokens".to_string(), module);
        });
        assert!(error.to_string().contains("model.embed_tokens"), "{error}");
        let error = refused(server, &|adapter, _| {
            let module = adapter.modules["model.layers.0.self_attn.q_proj"].clone();
            adapter
                .modules
                .insert("transformer.h.0.attn.c_attn".to_string(), module);
        });
        assert!(error.to_string().contains("c_attn"), "{error}");
    }
    let error = refused(Server::LlamaCpp, &|_, options| options.base = None);
    assert!(error.to_string().contains("--model"), "{error}");
    let error = refused(Server::LlamaCpp, &|_, options| {
        options.base = Some(CausalConfig::from_folder(&folder("gpt2")).unwrap());
    });
    assert!(error.to_string().contains("family"), "{error}");
    let error = refused(Server::Ollama, &|adapter, _| {
        adapter.config.base_model_name_or_path = None
    });
    assert!(error.to_string().contains("--base-model-name"), "{error}");
}

#[test]
fn names_round_trip() {
    for server in Server::ALL {
        assert_eq!(server.to_string().parse(), Ok(server));
    }
    assert!("tgi".parse::<Server>().unwrap_err().contains("mlx"));
}
