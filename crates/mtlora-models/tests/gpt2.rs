//! GPT-2 agrees with transformers in hidden states, logits, loss and generated tokens, on every device of this build.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../mtlora-core/tests/common/every_path.rs"]
mod every_path;

use burn::tensor::{Device, Tensor};
use common::{Expected, difference, floats, folder};
use every_path::{devices, run_on_other_paths};
use mtlora_core::NamedDevice;
use mtlora_models::{
    CachedDecoder, CausalBatch, CausalDecoder, CausalLm, Checkpoint, Generated, GenerationConfig,
    Gpt2Config, generate,
};

#[test]
fn every_path_of_the_processor_agrees() {
    run_on_other_paths("every_path_of_the_processor_agrees");
}

fn model(device: &Device) -> (CausalLm, Gpt2Config) {
    let folder = folder("gpt2");
    let config = Gpt2Config::from_folder(&folder).unwrap();
    let model = CausalLm::from_folder(&folder, &config, device).unwrap();
    (model, config)
}

fn expected() -> Expected {
    Expected(std::fs::read(folder("gpt2").join("expected.safetensors")).unwrap())
}

fn tokens(values: Vec<i64>) -> Vec<u32> {
    values.into_iter().map(|id| id as u32).collect()
}

fn batch(sequences: &[Vec<u32>], device: &Device) -> CausalBatch {
    let all = sequences.iter().map(|ids| (ids.as_slice(), 0..ids.len()));
    CausalBatch::new(all, device).unwrap()
}

#[test]
fn hidden_states_logits_and_loss_agree_with_transformers() {
    let expected = expected();
    let ids = tokens(expected.ints("input_ids"));
    let sequences: Vec<Vec<u32>> = ids.chunks(ids.len() / 3).map(<[u32]>::to_vec).collect();
    for NamedDevice { name, device } in devices() {
        let (model, _) = model(&device);
        let batch = batch(&sequences, &device);
        // On devices that compile for each shape, rows of padding follow those of the sequences.
        let given = |rows: Tensor<2>| floats(rows.narrow(0, 0, batch.packed.tokens));
        let states = model.hidden_states(&batch.packed);
        for (index, state) in states.into_iter().enumerate() {
            let error = difference(&given(state), &expected.floats(&format!("hidden_{index}")));
            assert!(error < 1e-4, "{name} hidden {index}: {error}");
        }
        let error = difference(
            &given(model.logits(&batch.packed)),
            &expected.floats("logits"),
        );
        assert!(error < 1e-4, "{name} logits: {error}");
        let loss = model.loss(&batch, 0.0).div_scalar(batch.count as f32);
        let error = difference(&floats(loss.reshape([1, 1])), &expected.floats("loss"));
        assert!(error < 1e-4, "{name} loss: {error}");
    }
}

/// Compares with an expected sequence: the prompt, then what was generated, then padding with the end token.
fn check(name: &str, what: &str, found: &Generated, expected: &Expected) {
    let prompt = expected.ints("prompt").len();
    let mut wanted = tokens(expected.ints(what)).split_off(prompt);
    let mut whole = found.tokens.clone();
    whole.extend(found.end_token);
    assert!(wanted.split_off(whole.len()).iter().all(|id| *id == 0));
    assert_eq!(whole, wanted, "{name} {what}");
}

fn settings() -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: 24,
        eos_token_ids: vec![0],
        ..GenerationConfig::default()
    }
}

#[test]
fn generated_tokens_agree_with_transformers() {
    let expected = expected();
    let prompts = [tokens(expected.ints("prompt"))];
    for NamedDevice { name, device } in devices() {
        let (model, config) = model(&device);
        let run = |settings: &GenerationConfig| {
            let mut decoder = CachedDecoder::new(&model, &config, &device);
            let mut all = generate(&mut decoder, &prompts, settings, &mut |_| ()).unwrap();
            all.remove(0).remove(0)
        };
        check(&name, "greedy", &run(&settings()), &expected);
        for (num_beams, length_penalty, no_repeat_ngram_size) in
            [(4, 1.0, 0), (10, 0.9, 4), (5, 0.8, 3)]
        {
            let what = format!("beam{num_beams}_lp{length_penalty:.1}_ng{no_repeat_ngram_size}");
            let found = run(&GenerationConfig {
                num_beams,
                length_penalty,
                no_repeat_ngram_size,
                ..settings()
            });
            check(&name, &what, &found, &expected);
            let score = expected.floats(&format!("{what}_score"))[0];
            assert!((found.score - score).abs() < 1e-4, "{name} {what}");
        }
    }
}

fn prompts() -> Vec<Vec<u32>> {
    [1usize, 9, 4]
        .iter()
        .map(|length| (0..*length).map(|at| (at * 37 % 119) as u32 + 1).collect())
        .collect()
}

#[test]
fn a_batch_of_prompts_gives_what_each_gives_alone() {
    let NamedDevice { device, .. } = devices().remove(0);
    let (model, config) = model(&device);
    for num_beams in [1, 4] {
        let settings = GenerationConfig {
            num_beams,
            ..settings()
        };
        let run = |prompts: &[Vec<u32>]| {
            let mut decoder = CachedDecoder::new(&model, &config, &device);
            generate(&mut decoder, prompts, &settings, &mut |_| ()).unwrap()
        };
        let together = run(&prompts());
        for (prompt, together) in prompts().into_iter().zip(together) {
            let alone = run(&[prompt]).remove(0).remove(0);
            assert_eq!(alone.tokens, together[0].tokens);
            assert!((alone.score - together[0].score).abs() < 1e-4);
        }
    }
}

/// Some rows are continued several times and some are dropped, and there are more rows than the cache has room for at first.
#[test]
fn logits_from_the_cache_are_those_of_the_whole_sequence() {
    for NamedDevice { name, device } in devices() {
        let (model, config) = model(&device);
        let mut decoder = CachedDecoder::new(&model, &config, &device);
        let mut rows = prompts();
        let mut logits = decoder.start(&rows).unwrap();
        for step in 0..12usize {
            let last: Vec<Vec<f32>> = rows
                .iter()
                .map(|row| {
                    let all = model.logits(&batch(std::slice::from_ref(row), &device).packed);
                    let last: Tensor<2> = all.narrow(0, row.len() - 1, 1);
                    floats(last)
                })
                .collect();
            let error = difference(&logits, &last.concat());
            assert!(error < 1e-4, "{name} step {step}: {error}");
            let parents: Vec<usize> = (0..5).map(|row| (row * 2 + step) % rows.len()).collect();
            let tokens: Vec<u32> = (0..5).map(|row| (row * 11 + step) as u32 + 1).collect();
            rows = parents
                .iter()
                .zip(&tokens)
                .map(|(parent, token)| {
                    let mut row = rows[*parent].clone();
                    row.push(*token);
                    row
                })
                .collect();
            logits = decoder.step(&parents, &tokens).unwrap();
        }
    }
}

#[test]
fn a_saved_model_is_read_back_to_the_bit() {
    let (model, config) = model(&devices().remove(0).device);
    let copy = tempfile::tempdir().unwrap();
    model.save(copy.path(), &config).unwrap();
    let old = Checkpoint::open(&folder("gpt2")).unwrap();
    let new = Checkpoint::open(copy.path()).unwrap();
    for name in new.names() {
        assert_eq!(
            old.read_f32(name).unwrap(),
            new.read_f32(name).unwrap(),
            "{name}"
        );
    }
    assert_eq!(old.names().count(), new.names().count());
}
