//! An adapter whose factors say everything.

use std::borrow::Cow;

use burn::tensor::TensorData;

use super::error::ExportError;
use super::server::{ExportOptions, Server};
use crate::adapter::{AdaptedModule, PeftAdapter, TargetModules};
use crate::families::causal::CausalConfig;

/// The linear maps of a Llama-style decoder's layer, which vLLM and MLX adapt.
const LINEAR_MAPS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// Plain LoRA with the scale 1, and with one rank for all modules where the program wants that.
pub(super) struct PlainAdapter<'a> {
    pub server: Server,
    pub adapter: PeftAdapter,
    pub base: Option<&'a CausalConfig>,
}

impl<'a> PlainAdapter<'a> {
    pub(super) fn new(
        adapter: &PeftAdapter,
        server: Server,
        options: &'a ExportOptions,
    ) -> Result<Self, ExportError> {
        let mut folded = adapter.fold(options.fold)?;
        if let Some(name) = &options.base_name {
            folded.config.base_model_name_or_path = Some(name.clone());
        }
        if server != Server::Peft {
            refuse(server, &folded)?;
        }
        let one_rank = matches!(server, Server::Vllm | Server::Mlx);
        let largest = ranks(&folded).max().unwrap_or(0);
        for module in folded.modules.values_mut() {
            let rank = module.values.rank();
            let scale = std::mem::replace(&mut module.values.form.scale, 1.0);
            let wanted = if one_rank { largest } else { rank };
            let [a, b] = [&module.values.a, &module.values.b];
            let (a, b) = (padded(a, wanted), scaled(b, scale, wanted));
            (module.values.a, module.values.b) = (a, b);
        }
        if server == Server::Vllm {
            // A list, as the first versions want it, of the modules that have factors and no others.
            let names = folded.modules.keys().cloned().collect();
            folded.config.target_modules = Some(TargetModules::Names(names));
        }
        folded.config.use_rslora = false;
        let adapter = folded.described();
        Ok(Self {
            server,
            adapter,
            base: options.base.as_ref(),
        })
    }

    /// The largest rank.
    pub(super) fn rank(&self) -> usize {
        ranks(&self.adapter).max().unwrap_or(0)
    }
}

fn ranks(adapter: &PeftAdapter) -> impl Iterator<Item = usize> {
    adapter.modules.values().map(|module| module.values.rank())
}

/// The last part of a module's name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Refuses the parts that no program but PEFT reads.
fn refuse(server: Server, adapter: &PeftAdapter) -> Result<(), ExportError> {
    let refused = |what, name: &str, hint| ExportError::Refused {
        program: server.title(),
        what,
        name: name.to_string(),
        hint,
    };
    if let Some(name) = adapter.saved.keys().next() {
        let hint = "`mtlora merge` puts it into the model, with the adapter";
        return Err(refused("a trained tensor, here", name, hint));
    }
    let is_decoders =
        |name: &str| name.starts_with("model.layers.") && LINEAR_MAPS.contains(&last(name));
    for (name, module) in &adapter.modules {
        if module.embedding {
            let hint = "train with other --targets, or `mtlora merge` the adapter into the model";
            return Err(refused("an adapter on an embedding, here", name, hint));
        }
        if matches!(server, Server::Vllm | Server::Mlx) && !is_decoders(name) {
            let hint = "only the linear maps of Llama-style decoders can be adapted there; `mtlora merge` the adapter into \
                        the model";
            return Err(refused("an adapter on", name, hint));
        }
    }
    Ok(())
}

/// `A` with rows of zeros, up to a rank: `[rank, in]`.
fn padded(a: &TensorData, rank: usize) -> TensorData {
    let [_, input] = sides(a);
    let mut values = floats(a).into_owned();
    values.resize(rank * input, 0.0);
    TensorData::new(values, [rank, input])
}

/// `B` times the scale, with columns of zeros, up to a rank: `[out, rank]`.
fn scaled(b: &TensorData, scale: f64, rank: usize) -> TensorData {
    let [output, own] = sides(b);
    let mut values = vec![0.0; output * rank];
    for (row, old) in values
        .chunks_mut(rank.max(1))
        .zip(floats(b).chunks(own.max(1)))
    {
        for (value, old) in row.iter_mut().zip(old) {
            *value = (f64::from(*old) * scale) as f32;
        }
    }
    TensorData::new(values, [output, rank])
}

/// The two sides of a factor.
pub(super) fn sides(data: &TensorData) -> [usize; 2] {
    let shape = data.shape();
    [
        shape.first().copied().unwrap_or(0),
        shape.get(1).copied().unwrap_or(0),
    ]
}

/// The values of a factor.
pub(super) fn floats(data: &TensorData) -> Cow<'_, [f32]> {
    match data.as_slice::<f32>() {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(data.iter::<f32>().collect()),
    }
}

/// Both factors of a module, and their sides.
pub(super) fn factors(module: &AdaptedModule) -> [(Cow<'_, [f32]>, [usize; 2]); 2] {
    [&module.values.a, &module.values.b].map(|data| (floats(data), sides(data)))
}
