//! Rotary positions (arXiv 2104.09864): how fast each pair of a head's coordinates turns, and the tables of a batch.

use std::f64::consts::PI;

use burn::tensor::{Device, Tensor, TensorData};
use mtlora_core::rotate_heads;

/// Rotary positions, as a model's configuration describes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// The base of the wavelengths: `rope_theta`.
    pub theta: f64,
    /// How the angles are changed for longer texts than the model was first trained on.
    pub scaling: RotaryScaling,
}

/// How angles are changed for longer texts, by the names of transformers' `rope_type`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RotaryScaling {
    /// `default`: not at all.
    None,
    /// `linear`: all angles are divided by this.
    Linear(f64),
    /// `llama3`: slow angles are divided, fast ones are kept.
    Llama3(Llama3Scaling),
    /// `yarn` (arXiv 2309.00071): as `llama3` with another ramp, and a factor on the scores.
    Yarn(YarnScaling),
}

/// The scaling of Llama 3.1 and later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// What slow angles are divided by.
    pub factor: f64,
    /// Angles that turn fewer times than this over the original length are divided by the whole factor.
    pub low_freq_factor: f64,
    /// Angles that turn more often than this are kept.
    pub high_freq_factor: f64,
    /// The longest text that the model was first trained on, in tokens.
    pub original_max_position_embeddings: usize,
}

/// YaRN's scaling (arXiv 2309.00071, section 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// What slow angles are divided by.
    pub factor: f64,
    /// Angles that turn more often than this over the original length are kept.
    pub beta_fast: f64,
    /// Angles that turn fewer times than this are divided by the whole factor.
    pub beta_slow: f64,
    /// Whether the ramp between both begins and ends at whole coordinates.
    pub truncate: bool,
    /// The factor of cosines and sines.
    pub attention_factor: f64,
    /// The longest text that the model was first trained on, in tokens.
    pub original_max_position_embeddings: usize,
}

impl Rotary {
    /// Rotary positions with this base and unchanged angles.
    pub fn new(theta: f64) -> Self {
        Self {
            theta,
            scaling: RotaryScaling::None,
        }
    }

    /// The angle from one position to the next, of each pair of coordinates: `[head_width / 2]`. In 32-bit floats, as
    /// transformers keeps them.
    fn angles(&self, head_width: usize) -> Vec<f32> {
        let half = head_width / 2;
        let plain = (0..half).map(|pair| self.theta.powf(-2.0 * pair as f64 / head_width as f64));
        match self.scaling {
            RotaryScaling::None => plain.map(|angle| angle as f32).collect(),
            RotaryScaling::Linear(factor) => plain.map(|angle| (angle / factor) as f32).collect(),
            RotaryScaling::Llama3(scaling) => {
                plain.map(|angle| scaling.scaled(angle) as f32).collect()
            }
            RotaryScaling::Yarn(scaling) => {
                let [low, high] = scaling.ramp(self.theta, head_width);
                plain
                    .enumerate()
                    .map(|(pair, angle)| {
                        let slow = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        (angle / scaling.factor * slow + angle * (1.0 - slow)) as f32
                    })
                    .collect()
            }
        }
    }

    /// The factor of cosines and sines.
    fn size(&self) -> f64 {
        match self.scaling {
            RotaryScaling::Yarn(scaling) => scaling.attention_factor,
            _ => 1.0,
        }
    }
}

impl Llama3Scaling {
    /// An angle from one position to the next as it is after scaling.
    pub(crate) fn scaled(&self, angle: f64) -> f64 {
        let turns = self.original_max_position_embeddings as f64 * angle / (2.0 * PI);
        if turns > self.high_freq_factor {
            angle
        } else if turns < self.low_freq_factor {
            angle / self.factor
        } else {
            let kept =
                (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
            (1.0 - kept) * angle / self.factor + kept * angle
        }
    }
}

impl YarnScaling {
    /// The pair of coordinates whose angles begin to be divided, and the one from which they are divided by the whole
    /// factor.
    fn ramp(&self, theta: f64, head_width: usize) -> [f64; 2] {
        let width = head_width as f64;
        let pair_of = |turns: f64| {
            let length = self.original_max_position_embeddings as f64;
            width * (length / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(width - 1.0));
        // As transformers avoids a division by zero.
        [low, if low == high { high + 0.001 } else { high }]
    }
}

/// Cosines and sines for some tokens: `[tokens, head_width / 2]` each.
#[derive(Clone, Debug)]
pub struct RotaryTables {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryTables {
    /// The tables of tokens at these positions. They are constants, so that they are made without gradients on `device`.
    pub fn new(rotary: &Rotary, head_width: usize, positions: &[usize], device: &Device) -> Self {
        let angles = rotary.angles(head_width);
        let size = rotary.size();
        // Sequences of a batch share their positions.
        let longest = positions.iter().max().map_or(0, |last| last + 1);
        let by_position = longest <= positions.len();
        let pair = |position: usize, angle: &f32| {
            let (sin, cos) = f64::from(position as f32 * angle).sin_cos();
            [(cos * size) as f32, (sin * size) as f32]
        };
        let row = |position: usize| angles.iter().map(move |angle| pair(position, angle));
        let half = angles.len();
        let pairs: Vec<[f32; 2]> = if by_position {
            let all: Vec<[f32; 2]> = (0..longest).flat_map(row).collect();
            let rows = positions.iter();
            rows.flat_map(|position| all[position * half..][..half].iter().copied())
                .collect()
        } else {
            positions.iter().copied().flat_map(row).collect()
        };
        let table = |part: usize| {
            let values: Vec<f32> = pairs.iter().map(|pair| pair[part]).collect();
            Tensor::from_data(TensorData::new(values, [positions.len(), half]), device)
        };
        Self {
            cos: table(0),
            sin: table(1),
        }
    }

    /// Each head turned by the angles of its token: `[tokens, heads * head_width]` to the same.
    pub fn turn(&self, x: Tensor<2>) -> Tensor<2> {
        rotate_heads(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA3: Llama3Scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    const YARN: YarnScaling = YarnScaling {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 1.0,
        original_max_position_embeddings: 512,
    };

    /// The angles are those of transformers 5.24's `ROPE_INIT_FUNCTIONS`, for heads of 16.
    #[test]
    fn angles_agree_with_transformers() {
        let uneven = YarnScaling {
            factor: 8.0,
            beta_fast: 16.0,
            beta_slow: 2.0,
            truncate: false,
            original_max_position_embeddings: 256,
            ..YARN
        };
        for (theta, scaling, expected) in [
            (
                1e4,
                RotaryScaling::Linear(4.0),
                [
                    0.25,
                    0.079056941,
                    0.025,
                    0.00790569466,
                    0.0025,
                    0.000790569466,
                    0.00025,
                    7.90569466e-05,
                ],
            ),
            (
                5e5,
                RotaryScaling::Llama3(LLAMA3),
                [
                    1.0,
                    0.079403013,
                    0.00470075384,
                    0.000911583134,
                    0.000176776681,
                    3.42810235e-05,
                    6.64786967e-06,
                    1.28917316e-06,
                ],
            ),
            (
                1e4,
                RotaryScaling::Yarn(YARN),
                [
                    1.0,
                    0.25693506,
                    0.0625,
                    0.0138349654,
                    0.0025,
                    0.000790569466,
                    0.00025,
                    7.90569466e-05,
                ],
            ),
            (
                1e6,
                RotaryScaling::Yarn(uneven),
                [
                    1.0,
                    0.118547551,
                    0.00395284733,
                    0.000702926656,
                    0.000125,
                    2.22284925e-05,
                    3.95284678e-06,
                    7.02926684e-07,
                ],
            ),
        ] {
            let found = Rotary { theta, scaling }.angles(16);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let apart = (f64::from(*found) - expected).abs();
                assert!(
                    apart <= 2e-6 * expected,
                    "{scaling:?}: {found} and {expected}"
                );
            }
        }
    }

    /// Whether rows are made one by one or taken from those of all positions.
    #[test]
    fn a_token_has_the_angles_of_its_position() {
        let device = mtlora_core::devices().remove(0).device;
        let scaling = RotaryScaling::Yarn(YarnScaling {
            attention_factor: 1.25,
            ..YARN
        });
        let rotary = Rotary {
            theta: 1e4,
            scaling,
        };
        let angles = rotary.angles(6);
        for positions in [vec![0, 1, 2, 0, 1], vec![1000, 3]] {
            let tables = RotaryTables::new(&rotary, 6, &positions, &device);
            let read = |table: Tensor<2>| table.into_data().try_to_vec::<f32>().unwrap_or_default();
            let (cos, sin) = (read(tables.cos), read(tables.sin));
            for (row, position) in positions.iter().enumerate() {
                for (pair, angle) in angles.iter().enumerate() {
                    let (s, c) = f64::from(*position as f32 * angle).sin_cos();
                    let at = row * angles.len() + pair;
                    assert!((f64::from(cos[at]) - 1.25 * c).abs() < 1e-6);
                    assert!((f64::from(sin[at]) - 1.25 * s).abs() < 1e-6);
                }
            }
        }
    }
}
