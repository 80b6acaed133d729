//! Counts the floating-point operations of a step's matrix products.
//!
//! The product of `[m, k]` and `[k, n]` counts as `2 m k n` operations. The count includes the products that a step
//! cannot avoid:
//!
//! - In the forward pass: each linear map, once for each token whose output is used (in a classifier, the last layer
//!   needs only the first tokens after its keys and values); `Q Kᵀ` and `P V`, for each pair of tokens of which one
//!   attends to the other; an adapter's `A`, `T` and `B`; the head; and a causal model's output map, for each token
//!   that is predicted.
//! - In the backward pass: each of these products once more for the gradient of its input, if a trainable parameter
//!   comes before it, and once more for the gradient of a trainable weight. A frozen weight has no gradient.
//!
//! The count does not include norms, activations, softmax, dropout, residuals, embedding look-ups, the computation of
//! `T` from `C` and `D`, the optimizer, and what a backward pass computes again instead of storing it. A fraction of
//! the peak rate that is based on this count is therefore that of the useful work.

use mtlora_models::{CausalModelConfig, ClassifierModelConfig, OperationCounter};

use super::trains::Trains;

/// The operations of a classifier's training step on sequences with these lengths in tokens. `trains` has the
/// trainable parameters.
pub fn classifier_flops(
    config: &dyn ClassifierModelConfig,
    trains: &Trains,
    lengths: &[usize],
) -> f64 {
    let mut count = Count::new(trains);
    config.count_operations(&mut count, lengths);
    count.flops
}

/// The operations of a causal model's training step on sequences with these lengths in tokens. `targets` is the
/// number of predicted tokens in them, and `trains` has the trainable parameters.
pub fn causal_flops(
    config: &dyn CausalModelConfig,
    trains: &Trains,
    lengths: &[usize],
    targets: usize,
) -> f64 {
    let mut count = Count::new(trains);
    let sum = |each: &dyn Fn(usize) -> usize| -> f64 {
        lengths.iter().map(|length| each(*length) as f64).sum()
    };
    let tokens = sum(&|length| length);
    let pairs = sum(&|length| length * (length + 1) / 2);
    let tracked = config.count_layers(&mut count, tokens, pairs);
    config.count_output_map(&mut count, targets as f64, tracked);
    count.flops
}

/// The operations of generating `new` tokens after each of `prompts` prompts of `length` tokens with this number of
/// beams. The prompt is read once, and then one row per beam, with cached keys and values.
pub fn decoding_flops(
    config: &dyn CausalModelConfig,
    [prompts, length]: [usize; 2],
    beams: usize,
    new: usize,
) -> f64 {
    let trains = Trains::default();
    let mut count = Count::new(&trains);
    let all = |each: usize| (prompts * each) as f64;
    config.count_layers(&mut count, all(length), all(length * (length + 1) / 2));
    config.count_output_map(&mut count, all(1), false);
    // The first new token follows from the prompt, and the last one is never read.
    for read in 1..new {
        config.count_layers(&mut count, all(beams), all(beams * (length + read)));
        config.count_output_map(&mut count, all(beams), false);
    }
    count.flops
}

/// Counts the operations of a model in the order of its forward pass.
struct Count<'a> {
    trains: &'a Trains,
    flops: f64,
}

impl<'a> Count<'a> {
    fn new(trains: &'a Trains) -> Self {
        Self { trains, flops: 0.0 }
    }
}

impl OperationCounter for Count<'_> {
    fn embedding(&mut self, module: &str, rows: f64) -> bool {
        let Some(factors) = self.trains.adapter(module) else {
            return self.trains.weight(module);
        };
        // Reading A is a look-up of its columns. The products with T and B have two gradients each.
        self.flops += 3.0 * 2.0 * rows * (factors.b + factors.t);
        true
    }

    fn linear(
        &mut self,
        module: &str,
        rows: f64,
        [inputs, outputs]: [usize; 2],
        tracked: bool,
    ) -> bool {
        let product = 2.0 * rows * (inputs * outputs) as f64;
        let weight = self.trains.weight(module);
        self.flops += product * (1.0 + f64::from(tracked) + f64::from(weight));
        let adapter = self.trains.adapter(module);
        if let Some(factors) = adapter {
            // Each factor has the product, its own gradient and the gradient of its input. A's input is that of the
            // map.
            let of_a = 2.0 + f64::from(tracked);
            self.flops += 2.0 * rows * (of_a * factors.a + 3.0 * (factors.b + factors.t));
        }
        tracked || weight || adapter.is_some()
    }

    fn attention(&mut self, pairs: f64, width: usize, [query, key, value]: [bool; 3]) -> bool {
        let product = 2.0 * pairs * width as f64;
        let backward = f64::from(query) + f64::from(key) + f64::from(value);
        let of_probabilities = f64::from(query || key);
        self.flops += product * (2.0 + backward + of_probabilities);
        query || key || value
    }

    fn pair_products(&mut self, pairs: f64, width: usize, [a, b]: [bool; 2]) -> bool {
        let product = 2.0 * pairs * width as f64;
        self.flops += product * (1.0 + f64::from(a) + f64::from(b));
        a || b
    }

    fn trains(&self, prefix: &str) -> bool {
        self.trains.any(prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::module::Module;
    use mtlora_core::{MtLoraConfig, Structure, Targets, devices};
    use mtlora_models::{
        Architecture, CausalLm, EncoderConfig, EncoderSizes, Gpt2Config, Gpt2Sizes, ModelConfig,
        ModelFamilies, SequenceClassifier, fused_projections,
    };

    use super::*;
    use crate::training::method::Method;

    fn encoder() -> EncoderConfig {
        let sizes = EncoderSizes {
            vocab_size: 40,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 16,
            max_tokens: 20,
        };
        EncoderConfig::new(Architecture::Roberta, sizes).unwrap()
    }

    fn causal() -> Gpt2Config {
        Gpt2Config::new(Gpt2Sizes {
            vocab_size: 40,
            n_embd: 8,
            n_layer: 2,
            n_head: 2,
            n_positions: 20,
            end_of_text: 39,
        })
        .unwrap()
    }

    fn adapter(targets: &[&str]) -> Method {
        Method::MtLora(
            MtLoraConfig::new(Structure::Shim)
                .with_rank(2)
                .with_target_modules(Targets::names(targets.iter().copied()))
                .with_fused_projections(fused_projections("qkv").into_iter().collect()),
        )
    }

    fn trains<M: Module>(model: M, method: &Method) -> Trains {
        Trains::of(&method.prepare(model).unwrap())
    }

    fn classifier(config: &EncoderConfig) -> SequenceClassifier {
        let device = devices().remove(0).device.autodiff();
        SequenceClassifier::fresh(config, 0, &device).unwrap()
    }

    fn lm(config: &Gpt2Config) -> CausalLm {
        let device = devices().remove(0).device.autodiff();
        CausalLm::fresh(config, 0, &device).unwrap()
    }

    #[test]
    fn with_all_weights_trained_a_step_is_three_forward_passes() {
        let (none, lengths) = (Trains::default(), [3, 5, 4]);
        let config = encoder();
        let full = trains(classifier(&config), &Method::Full);
        let forward = classifier_flops(&config, &none, &lengths);
        assert_eq!(classifier_flops(&config, &full, &lengths), 3.0 * forward);
        for tie_word_embeddings in [true, false] {
            let mut config = causal();
            config.tie_word_embeddings = tie_word_embeddings;
            let full = trains(lm(&config), &Method::Full);
            let forward = causal_flops(&config, &none, &lengths, 9);
            assert_eq!(causal_flops(&config, &full, &lengths, 9), 3.0 * forward);
        }
    }

    #[test]
    fn an_adapter_on_the_embeddings_is_one_on_the_output_map_only_where_the_two_are_one() {
        let (lengths, targets) = ([4], 3);
        let [one, two] = [true, false].map(|tie_word_embeddings| {
            let mut config = causal();
            config.tie_word_embeddings = tie_word_embeddings;
            let found = trains(lm(&config), &adapter(&["wte"]));
            causal_flops(&config, &found, &lengths, targets)
        });
        // For A, B and T, each of rank 2: the product, the gradient of the factor, and that of its input.
        let factors = 3.0 * 2.0 * 40.0 + 3.0 * (2.0 * 8.0 + 2.0 * 2.0);
        assert_eq!(one - two, 2.0 * 3.0 * factors);
    }

    #[test]
    fn an_adapter_on_the_second_layer_spares_the_first_its_backward_pass() {
        let (config, lengths) = (encoder(), [3, 5]);
        let [tokens, sequences] = [8.0, 2.0];
        let forward = classifier_flops(&config, &Trains::default(), &lengths);
        let method = adapter(&["layer.1.attention.self_.value"]);
        let step = classifier_flops(&config, &trains(classifier(&config), &method), &lengths);
        let factors = 2.0 * tokens * (5.0 * 16.0 + 3.0 * 4.0);
        // The backward pass goes through the head, the output maps, and the attention down to the value projection.
        let attention = 2.0 * tokens * 8.0;
        let maps = 2.0 * sequences * (8.0 * 8.0 + 2.0 * 8.0 * 16.0 + 8.0 * 8.0 + 8.0 * 2.0);
        assert_eq!(step, forward + factors + attention + maps);
    }

    #[test]
    fn a_fused_adapter_counts_each_projections_own_rows() {
        let (config, lengths) = (causal(), [4]);
        let found = trains(lm(&config), &adapter(&["c_attn"]));
        let factors = found.adapter("transformer.h.1.attn.c_attn").unwrap();
        // The shapes are [3 rank, in] for A, [3 width, rank] for B and [3 rank, 3 rank] for T.
        assert_eq!([factors.a, factors.b, factors.t], [48.0, 48.0, 36.0]);
        let forward = causal_flops(&config, &Trains::default(), &lengths, 3);
        let step = causal_flops(&config, &found, &lengths, 3);
        assert!(step > 1.9 * forward && step < 3.0 * forward);
    }

    #[test]
    fn roberta_base_is_as_large_as_it_should_be() {
        let config = ModelFamilies::builtin().published("roberta-base");
        let Some(ModelConfig::Classifier(config)) = config.unwrap() else {
            panic!("RoBERTa is an encoder");
        };
        let forward = classifier_flops(&config, &Trains::default(), &[128; 16]);
        // The layers have 85 million weights. In the last layer only keys and values are computed for all tokens.
        let layer = 12.0 * 768.0 * 768.0;
        let weights = 2.0 * 2048.0 * (11.0 * layer + 2.0 * 768.0 * 768.0);
        let attention = 11.0 * 4.0 * 16.0 * 128.0 * 128.0 * 768.0;
        let share = forward / (weights + attention);
        assert!((1.0..1.01).contains(&share), "{share}");
    }

    #[test]
    fn decoding_reads_the_prompt_once_and_every_new_token_but_the_last() {
        let config = causal();
        let one = decoding_flops(&config, [1, 6], 3, 1);
        assert_eq!(one, causal_flops(&config, &Trains::default(), &[6], 1));
        // Greedy decoding does what reading the whole text does, plus more products with the output map.
        let greedy = decoding_flops(&config, [1, 6], 1, 5);
        let read = causal_flops(&config, &Trains::default(), &[10], 5);
        assert!((greedy / read - 1.0).abs() < 1e-12);
    }
}
