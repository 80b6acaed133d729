//! llama.cpp itself loads an adapter that was exported for it and computes our logits. tests/interop/llama_cpp/build.sh builds
//! what `MTLORA_LLAMA_CPP` names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::TensorData;
use common::floats;
use mtlora_core::{AdapterForm, AdapterValues, Factors, Fold, Structure, devices};
use mtlora_models::{
    AdaptedModule, AdapterConfig, CausalConfig, CausalLm, Checkpoint, ExportOptions, GgufType,
    PackedBatch, PeftAdapter, Server, TargetModules, Tokens, convert_gguf, export_adapter,
    save_gguf,
};

/// An adapter with a T on every linear map of the layers. Its factors are so small that the update changes the logits
/// without drowning the model.
fn adapter(folder: &Path, size: f32) -> PeftAdapter {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let mut modules = BTreeMap::new();
    for (seed, name) in checkpoint.names().enumerate() {
        let module = name
            .strip_suffix("_proj.weight")
            .map(|start| format!("{start}_proj"));
        let Some(module) = module else {
            continue;
        };
        let (shape, _) = checkpoint.read_f32(name).unwrap();
        let rank = 2 + seed % 3;
        let numbers = |rows: usize, columns: usize, step: usize| {
            let values: Vec<f32> = (0..rows * columns)
                .map(|at| size * (((at + seed) * step % 101) as f32 / 50.0 - 1.0))
                .collect();
            TensorData::new(values, [rows, columns])
        };
        let values = AdapterValues {
            a: numbers(rank, shape[1], 37),
            b: numbers(shape[0], rank, 53),
            further: Factors::from_iter([("c", numbers(rank, rank, 71))]),
            form: AdapterForm::new(Structure::Shim, 2.0 / f64::from(size)),
        };
        modules.insert(
            module,
            AdaptedModule {
                values,
                embedding: false,
            },
        );
    }
    let config = AdapterConfig::new(4, 8.0, TargetModules::AllLinear);
    PeftAdapter::new(config, modules, BTreeMap::new())
}

/// llama.cpp's logits after the last token, of a model with an adapter, or without one if that is `-`.
fn theirs(gguf: &Path, adapter: &Path, tokens: &[u32]) -> Vec<f32> {
    let program = std::env::var_os("MTLORA_LLAMA_CPP")
        .expect("MTLORA_LLAMA_CPP names tests/interop/llama_cpp's program");
    let numbers = tokens.iter().map(u32::to_string);
    let output = Command::new(&program)
        .arg(gguf)
        .arg(adapter)
        .args(numbers)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

/// Our logits after the last token.
fn ours(model: &CausalLm, config: &CausalConfig, tokens: &[u32]) -> Vec<f32> {
    let tokens = Tokens {
        ids: tokens.to_vec(),
        type_ids: vec![0; tokens.len()],
    };
    let batch = PackedBatch::new(&[&tokens], config, &devices()[0].device).unwrap();
    floats(model.logits(&batch).narrow(0, tokens.ids.len() - 1, 1))
}

/// The logits after the last token: ours, and llama.cpp's, without the adapter and with it.
fn logits(gguf: &Path, tokens: &[u32], size: f32) -> [[Vec<f32>; 2]; 2] {
    let folder = tempfile::tempdir().unwrap();
    convert_gguf(gguf, folder.path()).unwrap();
    let config = CausalConfig::from_folder(folder.path()).unwrap();
    let adapter = adapter(folder.path(), size);
    let out = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        fold: Fold::Balanced,
        base: Some(config.clone()),
        base_name: None,
    };
    let written = export_adapter(&adapter, Server::LlamaCpp, &options, out.path()).unwrap();

    let device = &devices()[0].device;
    let plain = CausalLm::from_folder(folder.path(), &config, device).unwrap();
    let adapted = adapter.attach(plain.clone(), &config, &[]).unwrap();
    [
        [
            ours(&plain, &config, tokens),
            theirs(gguf, Path::new("-"), tokens),
        ],
        [
            ours(&adapted, &config, tokens),
            theirs(gguf, &written.files[0], tokens),
        ],
    ]
}

/// The largest difference, as a part of the largest logit.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / size
}

/// In 32-bit floats, of models whose query and key rows are in another order there, and are not.
#[test]
#[ignore = "needs llama.cpp, which tests/interop/llama_cpp/build.sh builds"]
fn llama_cpp_computes_our_logits() {
    for name in ["llama_bias", "qwen3"] {
        let gguf = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/gguf")
            .join(format!("{name}.gguf"));
        let [[plain, their_plain], [adapted, their_adapted]] =
            logits(&gguf, &[5, 29, 3, 7, 11], 0.3);
        let (base, with, change) = (
            apart(&plain, &their_plain),
            apart(&adapted, &their_adapted),
            apart(&plain, &adapted),
        );
        println!("{name}: base {base:e}, with the adapter {with:e}, of a change of {change}");
        assert!(base < 1e-4 && with < 1e-4 && change > 0.05);
    }
}

/// A model that is written in each type is a file that llama.cpp reads. It rounds what it multiplies with such weights, to the
/// weights' type (`vec_dot_type` of ggml): the bounds are a few roundings of the largest logit.
#[test]
#[ignore = "needs llama.cpp, which tests/interop/llama_cpp/build.sh builds"]
fn llama_cpp_reads_the_files_that_are_written() {
    let tokens = [5, 29, 3, 7, 11];
    let device = &devices()[0].device;
    for name in ["llama_bias", "qwen3"] {
        let gguf = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/gguf")
            .join(format!("{name}.gguf"));
        let folder = tempfile::tempdir().unwrap();
        convert_gguf(&gguf, folder.path()).unwrap();
        let config = CausalConfig::from_folder(folder.path()).unwrap();
        for (kind, bound) in [
            (GgufType::F32, 1e-4),
            (GgufType::F16, 5e-3),
            (GgufType::Bf16, 3e-2),
            (GgufType::Q8_0, 3e-2),
        ] {
            let model = CausalLm::from_folder(folder.path(), &config, device).unwrap();
            let path = folder.path().join(format!("{kind}.gguf"));
            save_gguf(model, &config, folder.path(), kind, &path).unwrap();
            let config = CausalConfig::from_folder(&path).unwrap();
            let model = CausalLm::from_folder(&path, &config, device).unwrap();
            let apart = apart(
                &ours(&model, &config, &tokens),
                &theirs(&path, Path::new("-"), &tokens),
            );
            println!("{name} in {kind}: {apart:e}");
            assert!(apart < bound, "{name} in {kind}: {apart}");
        }
    }
}

/// On SmolLM2-135M-Instruct in Q4_1, whose products llama.cpp makes of activations rounded to 8 bits: the adapter adds no
/// more than the base has, and the five likeliest tokens are the same.
#[test]
#[ignore = "needs llama.cpp, and SmolLM2-135M-Instruct.Q4_1.gguf, which MTLORA_SMOLLM2 names"]
fn llama_cpp_computes_our_logits_of_a_quantized_model() {
    let path = std::env::var_os("MTLORA_SMOLLM2").expect("MTLORA_SMOLLM2 names the GGUF file");
    let tokens = [504, 3575, 282, 4649, 314];
    let [[plain, their_plain], [adapted, their_adapted]] = logits(Path::new(&path), &tokens, 0.08);
    let (base, with, change) = (
        apart(&plain, &their_plain),
        apart(&adapted, &their_adapted),
        apart(&plain, &adapted),
    );
    println!("base {base:e}, with the adapter {with:e}, of a change of {change}");
    let top = |logits: &[f32]| {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        order[0]
    };
    assert!(change > 0.05 && with < 3.0 * base.max(0.01) && with < 0.5 * change);
    assert_eq!(top(&adapted), top(&their_adapted));
}
