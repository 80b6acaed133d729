//! In what the architectures differ: how their config.json is read, by the defaults of transformers 5.24.

/// One of the architectures, by the `model_type` of its config.json.
#[derive(Debug)]
pub(super) struct Architecture {
    pub model_type: &'static str,
    /// The class in transformers.
    pub class: &'static str,
    /// Heads of key and value if the file does not say it; as many as of the query where it is absent.
    pub key_value_heads: Option<usize>,
    /// Width of a head if the file does not say it; `hidden_size / num_attention_heads` where it is absent.
    pub head_dim: Option<usize>,
    /// Which of the maps of query, key and value, and of the attention's output, have a bias.
    pub attention_bias: [Bias; 2],
    /// Whether the maps of the feed-forward block have a bias.
    pub mlp_bias: Bias,
    /// Whether each head of query and key is normalised.
    pub normalises_heads: bool,
    /// Which layers see only the last tokens.
    pub windows: Windows,
    /// Whether `no_rope_layers` says which layers know no positions.
    pub has_layers_without_positions: bool,
    /// `rope_theta` if the file does not say it.
    pub theta: f64,
    /// `tie_word_embeddings` if the file does not say it.
    pub ties: bool,
    /// `eos_token_id` if the file does not say it.
    pub end_of_text: Option<usize>,
}

/// Whether a map has a bias.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bias {
    Never,
    Always,
    /// As this field says; not if it is absent.
    Field(&'static str),
}

/// Which layers see only the last `sliding_window` tokens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Windows {
    /// None.
    Never,
    /// All if `sliding_window` is not null; this many tokens if it is absent.
    EveryLayer(usize),
    /// With `use_sliding_window`: those that `layer_types` names, or else those from `max_window_layers` on, which is this
    /// if it is absent.
    LayersFrom(usize),
    /// With `use_sliding_window`: those that `layer_types` names, or else those that know no positions.
    LayersWithoutPositions,
}

const LLAMA: Architecture = Architecture {
    model_type: "llama",
    class: "LlamaForCausalLM",
    key_value_heads: None,
    head_dim: None,
    attention_bias: [Bias::Field("attention_bias"); 2],
    mlp_bias: Bias::Field("mlp_bias"),
    normalises_heads: false,
    windows: Windows::Never,
    has_layers_without_positions: false,
    theta: 10_000.0,
    ties: false,
    end_of_text: Some(2),
};

/// The architectures, Llama first.
pub(super) const ARCHITECTURES: [Architecture; 5] = [
    LLAMA,
    Architecture {
        model_type: "mistral",
        class: "MistralForCausalLM",
        key_value_heads: Some(8),
        attention_bias: [Bias::Never; 2],
        mlp_bias: Bias::Never,
        windows: Windows::EveryLayer(4096),
        ..LLAMA
    },
    Architecture {
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        key_value_heads: Some(32),
        attention_bias: [Bias::Always, Bias::Never],
        mlp_bias: Bias::Never,
        windows: Windows::LayersFrom(28),
        end_of_text: None,
        ..LLAMA
    },
    Architecture {
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        key_value_heads: Some(32),
        head_dim: Some(128),
        mlp_bias: Bias::Never,
        normalises_heads: true,
        windows: Windows::LayersFrom(28),
        end_of_text: None,
        ..LLAMA
    },
    Architecture {
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        key_value_heads: Some(4),
        windows: Windows::LayersWithoutPositions,
        has_layers_without_positions: true,
        theta: 2_000_000.0,
        ties: true,
        end_of_text: Some(128_001),
        ..LLAMA
    },
];

/// The `model_type`s of [`ARCHITECTURES`].
pub(super) const MODEL_TYPES: [&str; 5] = {
    let mut names = [""; 5];
    let mut index = 0;
    while index < names.len() {
        names[index] = ARCHITECTURES[index].model_type;
        index += 1;
    }
    names
};

impl Architecture {
    pub(super) fn of(model_type: &str) -> Option<&'static Self> {
        const ALL: &[Architecture] = &ARCHITECTURES;
        ALL.iter().find(|one| one.model_type == model_type)
    }
}
