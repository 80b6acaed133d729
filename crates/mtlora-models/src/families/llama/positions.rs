//! Reads how a model's tokens know their positions: `rope_theta` and `rope_scaling`, or transformers 5's `rope_parameters`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::files::fields::{Fields, brief};
use crate::layers::rotary::{Llama3Scaling, Rotary, RotaryScaling, YarnScaling};
use crate::messages::listed;

/// The kinds of scaling that are computed.
const KINDS: [&str; 4] = ["default", "linear", "llama3", "yarn"];

/// The rotary positions of the file, with `theta` where it names none.
pub(super) fn read(
    fields: &Fields<'_>,
    theta: f64,
    max_position_embeddings: usize,
) -> Result<Rotary, ModelError> {
    let none = Map::new();
    let (name, map) = match own(fields)? {
        Some(found) => found,
        None => ("rope_parameters", &none),
    };
    if let Some((kind, _)) = map.iter().find(|(_, value)| value.is_object()) {
        let message = format!(
            "gives layers of the kind {} positions of their own, which is not supported; use a model whose layers have \
             the same",
            brief(&json!(kind))
        );
        return Err(fields.wrong(name, message));
    }
    let inner = Fields {
        path: fields.path,
        text: fields.text,
        map,
    };
    let either = |field: &str| inner.get(field).map_or(fields, |_| &inner);
    let share = either("partial_rotary_factor").number("partial_rotary_factor", 0.0..=1.0)?;
    if let Some(share) = share.filter(|share| *share < 1.0) {
        let message = format!("is {share}, but only 1 is supported: all of a head is turned");
        return Err(fields.wrong("partial_rotary_factor", message));
    }
    let read = either("rope_theta").number("rope_theta", 1.0..=1e30)?;
    let theta = read.unwrap_or(theta);
    let kind = inner.get("rope_type").or_else(|| inner.get("type"));
    let known = kind.map_or(Some(KINDS[0]), |kind| {
        KINDS
            .into_iter()
            .find(|known| kind.as_str() == Some(*known))
    });
    let Some(known) = known else {
        let message = format!(
            "asks for positions of the kind {}, but must ask for one of {}",
            kind.map(brief).unwrap_or_default(),
            listed(&KINDS)
        );
        return Err(fields.wrong(name, message));
    };
    let of_scaling = Scaling {
        outer: fields,
        fields: inner,
        max_position_embeddings,
    };
    let scaling = match known {
        "linear" => RotaryScaling::Linear(of_scaling.factor("factor")?),
        "llama3" => of_scaling.llama3()?,
        "yarn" => of_scaling.yarn()?,
        _ => RotaryScaling::None,
    };
    Ok(Rotary { theta, scaling })
}

/// An object of the file, with its name.
type Named<'a> = (&'static str, &'a Map<String, Value>);

/// The object that describes the positions, with its name. As in transformers, `rope_scaling` comes first.
fn own<'a>(fields: &'a Fields<'_>) -> Result<Option<Named<'a>>, ModelError> {
    for name in ["rope_scaling", "rope_parameters"] {
        match fields.get(name) {
            None => (),
            Some(Value::Object(map)) if map.is_empty() => (),
            Some(Value::Object(map)) => return Ok(Some((name, map))),
            Some(value) => {
                let message = format!("is {}, but must be an object or null", brief(value));
                return Err(fields.wrong(name, message));
            }
        }
    }
    Ok(None)
}

/// The fields of a kind of scaling.
struct Scaling<'a> {
    outer: &'a Fields<'a>,
    fields: Fields<'a>,
    max_position_embeddings: usize,
}

impl Scaling<'_> {
    /// A factor that the kind needs.
    fn factor(&self, field: &'static str) -> Result<f64, ModelError> {
        let found = self.fields.number(field, 1e-6..=1e9)?;
        found.ok_or_else(|| {
            self.fields
                .missing(field, "the kind of `rope_type` or `type` needs")
        })
    }

    /// A number with a default; 0 counts as absent, as in transformers.
    fn number_or(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        let found = self.fields.number(field, 0.0..=1e9)?;
        Ok(found.filter(|found| *found > 0.0).unwrap_or(default))
    }

    fn original_max_position_embeddings(&self) -> Result<usize, ModelError> {
        let field = "original_max_position_embeddings";
        let from = match self.outer.get(field) {
            Some(_) => self.outer,
            None => &self.fields,
        };
        from.size_or(field, self.max_position_embeddings, 1..=1 << 30)
    }

    fn llama3(&self) -> Result<RotaryScaling, ModelError> {
        let (low, high) = (
            self.factor("low_freq_factor")?,
            self.factor("high_freq_factor")?,
        );
        if high <= low {
            let message = format!("is {high}, but must be above low_freq_factor, {low}");
            return Err(self.fields.wrong("high_freq_factor", message));
        }
        Ok(RotaryScaling::Llama3(Llama3Scaling {
            factor: self.factor("factor")?,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: self.original_max_position_embeddings()?,
        }))
    }

    fn yarn(&self) -> Result<RotaryScaling, ModelError> {
        let original = self.original_max_position_embeddings()?;
        let factor = match self.fields.get("factor") {
            Some(_) => self.factor("factor")?,
            None => self.max_position_embeddings as f64 / original as f64,
        };
        let size = |scale: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * scale * factor.ln() + 1.0
            }
        };
        let scales = ["mscale", "mscale_all_dim"];
        let [scale, whole] = scales.map(|field| self.number_or(field, 0.0));
        let (scale, whole) = (scale?, whole?);
        let usual = if scale > 0.0 && whole > 0.0 {
            size(scale) / size(whole)
        } else {
            size(1.0)
        };
        let given = self.fields.number("attention_factor", 0.0..=1e9)?;
        Ok(RotaryScaling::Yarn(YarnScaling {
            factor,
            beta_fast: self.number_or("beta_fast", 32.0)?,
            beta_slow: self.number_or("beta_slow", 1.0)?,
            truncate: self.fields.flag_or("truncate", true)?,
            attention_factor: given.unwrap_or(usual),
            original_max_position_embeddings: original,
        }))
    }
}
