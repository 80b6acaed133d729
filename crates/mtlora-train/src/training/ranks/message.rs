//! The messages between ranks. All ranks run the same program on processors with the same order of bytes.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor, TensorData};
use mtlora_core::{State, each_parameter, state};

use crate::training::normalization::Divisors;
use crate::training::ranks::error::RanksError;

/// What rank 0 asks the others for.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// To begin with the work that comes before the training.
    Begin,
    /// What they train, as an [`Identity`].
    Compare,
    /// The gradients of one micro-batch each.
    Gradients(Round),
    /// The parts of an evaluation of the model with these [values](values_of).
    Evaluate { values: Vec<u8> },
    /// To end the training.
    Done,
    /// To end.
    Leave,
}

/// One micro-batch of a step for each rank.
#[derive(Debug, PartialEq)]
pub(super) struct Round {
    /// The number of the step, counted from 1.
    pub(super) step: usize,
    /// The random state before the step.
    pub(super) random: u64,
    /// The number of rank 0's micro-batch in the step, counted from 0; those of the others follow.
    pub(super) first: usize,
    /// The [values](values_of) of the trained parameters, in the first round of a step.
    pub(super) values: Option<Vec<u8>>,
    /// The micro-batches of rank 1 and those after it. The last round of an epoch may not have one for each.
    pub(super) batches: Vec<MicroBatch>,
}

/// Examples whose loss is divided by `divisors`.
#[derive(Debug, PartialEq)]
pub(super) struct MicroBatch {
    pub(super) examples: Vec<usize>,
    pub(super) divisors: Divisors,
}

/// What another rank answers.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// What it trains.
    Identity(Identity),
    /// The gradients of its micro-batch.
    Gradients {
        /// The number of tokens.
        tokens: usize,
        /// The loss, divided.
        loss: f64,
        /// The gradients, by [`gradients_of`].
        gradients: Vec<u8>,
    },
    /// The loss of its micro-batch, which is not finite.
    NotFinite(f32),
    /// Its parts of the evaluation.
    Parts(Vec<Vec<f64>>),
    /// It cannot go on.
    Failed(String),
}

/// What a rank trains.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: String,
    /// The fingerprint of the examples.
    pub(super) data: String,
    /// The fingerprint of the frozen weights.
    pub(super) base: String,
    /// The paths and shapes of the trained parameters.
    pub(super) trains: String,
}

impl Identity {
    /// What another identity has that this one has not.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let Self {
            version,
            data,
            base,
            trains,
        } = self;
        let found = if *version != other.version {
            format!("version {} of the program, another", other.version)
        } else if *trains != other.trains {
            "other trained parameters".to_string()
        } else if *base != other.base {
            "other weights of the base model".to_string()
        } else if *data != other.data {
            "other examples".to_string()
        } else {
            return None;
        };
        Some(found)
    }
}

impl Command {
    /// Whether rank 0 waits for this rank's reply.
    pub(super) fn is_for(&self, rank: usize) -> bool {
        match self {
            Command::Compare | Command::Evaluate { .. } => true,
            Command::Gradients(round) => rank <= round.batches.len(),
            Command::Begin | Command::Done | Command::Leave => false,
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Command::Begin => to.number(0),
            Command::Compare => to.number(1),
            Command::Gradients(round) => {
                to.number(2);
                round.write(&mut to);
            }
            Command::Evaluate { values } => {
                to.number(3);
                to.bytes(values);
            }
            Command::Done => to.number(4),
            Command::Leave => to.number(5),
        }
        to.0
    }

    /// Reads a command of rank 0.
    pub(super) fn read(message: &[u8]) -> Result<Self, RanksError> {
        let mut from = Reader(message);
        let read = |from: &mut Reader<'_>| {
            Some(match from.number()? {
                0 => Command::Begin,
                1 => Command::Compare,
                2 => Command::Gradients(Round::read(from)?),
                3 => Command::Evaluate {
                    values: from.bytes()?.to_vec(),
                },
                4 => Command::Done,
                5 => Command::Leave,
                _ => return None,
            })
        };
        let read = read(&mut from).filter(|_| from.0.is_empty());
        read.ok_or(RanksError::Message { rank: 0 })
    }
}

impl Round {
    fn write(&self, to: &mut Writer) {
        to.number(self.step as u64);
        to.number(self.random);
        to.number(self.first as u64);
        to.number(u64::from(self.values.is_some()));
        to.bytes(self.values.as_deref().unwrap_or_default());
        to.number(self.batches.len() as u64);
        for MicroBatch { examples, divisors } in &self.batches {
            to.number(examples.len() as u64);
            for example in examples {
                to.number(*example as u64);
            }
            to.float(divisors.terms);
            to.float(divisors.batches);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (step, random, first) = (from.size()?, from.number()?, from.size()?);
        let has_values = from.number()? != 0;
        let values = from.bytes()?.to_vec();
        let batches = from.list(|from| {
            Some(MicroBatch {
                examples: from.list(Reader::size)?,
                divisors: Divisors {
                    terms: from.float()?,
                    batches: from.float()?,
                },
            })
        })?;
        Some(Self {
            step,
            random,
            first,
            values: has_values.then_some(values),
            batches,
        })
    }
}

impl Reply {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Reply::Identity(Identity {
                version,
                data,
                base,
                trains,
            }) => {
                to.number(0);
                for text in [version, data, base, trains] {
                    to.bytes(text.as_bytes());
                }
            }
            Reply::Gradients {
                tokens,
                loss,
                gradients,
            } => {
                to.number(1);
                to.number(*tokens as u64);
                to.float(*loss);
                to.bytes(gradients);
            }
            Reply::NotFinite(loss) => {
                to.number(2);
                to.number(u64::from(loss.to_bits()));
            }
            Reply::Parts(parts) => {
                to.number(3);
                to.number(parts.len() as u64);
                for part in parts {
                    to.number(part.len() as u64);
                    for value in part {
                        to.float(*value);
                    }
                }
            }
            Reply::Failed(message) => {
                to.number(4);
                to.bytes(message.as_bytes());
            }
        }
        to.0
    }

    /// Reads a reply of `rank`. One that says that the rank failed is its error.
    pub(super) fn read(message: &[u8], rank: usize) -> Result<Self, RanksError> {
        let mut from = Reader(message);
        let read = |from: &mut Reader<'_>| {
            Some(match from.number()? {
                0 => Reply::Identity(Identity {
                    version: from.text()?,
                    data: from.text()?,
                    base: from.text()?,
                    trains: from.text()?,
                }),
                1 => Reply::Gradients {
                    tokens: from.size()?,
                    loss: from.float()?,
                    gradients: from.bytes()?.to_vec(),
                },
                2 => Reply::NotFinite(f32::from_bits(u32::try_from(from.number()?).ok()?)),
                3 => Reply::Parts(from.list(|from| from.list(Reader::float))?),
                4 => Reply::Failed(from.text()?),
                _ => return None,
            })
        };
        match read(&mut from).filter(|_| from.0.is_empty()) {
            Some(Reply::Failed(message)) => Err(RanksError::Failed { rank, message }),
            Some(reply) => Ok(reply),
            None => Err(RanksError::Message { rank }),
        }
    }
}

/// The values of the trained parameters, in the order of their paths.
pub(super) fn values_of<M: Module>(model: &M) -> Result<Vec<u8>, RanksError> {
    let mut to = Writer::default();
    for (path, data) in state(model, |_, trains| trains) {
        if data.dtype() != DType::F32 {
            return Err(RanksError::Value { path });
        }
        to.bytes(data.as_bytes());
    }
    Ok(to.0)
}

/// The paths and shapes of the trained parameters.
pub(super) fn shapes_of<M: Module>(model: &M) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    each_parameter(model, |parameter| {
        if parameter.trains() {
            shapes.insert(parameter.path.to_string(), parameter.shape().to_vec());
        }
    });
    shapes
}

/// Reads what [`values_of`] wrote for parameters of these shapes.
pub(super) fn read_values(
    values: &[u8],
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<State, RanksError> {
    let mut from = Reader(values);
    let mut state = State::new();
    for (path, shape) in shapes {
        let data = from.tensor(shape);
        state.insert(path.clone(), data.ok_or(RanksError::Message { rank: 0 })?);
    }
    if from.0.is_empty() {
        Ok(state)
    } else {
        Err(RanksError::Message { rank: 0 })
    }
}

/// The gradients of the parameters of `model` that have one, in Burn's order.
pub(super) fn gradients_of<M: Module>(
    model: &M,
    gradients: GradientsParams,
) -> Result<Vec<u8>, RanksError> {
    let mut written = WriteGradients {
        gradients,
        to: Writer::default(),
        number: 0,
        error: None,
    };
    model.visit(&mut written);
    match written.error {
        Some(error) => Err(error),
        None => Ok(written.to.0),
    }
}

struct WriteGradients {
    gradients: GradientsParams,
    to: Writer,
    /// The number of the parameter, counted from 0.
    number: u64,
    error: Option<RanksError>,
}

impl ModuleVisitor for WriteGradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let data = gradient.into_data();
            if data.dtype() != DType::F32 {
                let path = format!("gradient {}", self.number);
                self.error.get_or_insert(RanksError::Value { path });
                return;
            }
            self.to.number(self.number);
            self.to.bytes(data.as_bytes());
        }
        self.number += 1;
    }
}

/// Reads what [`gradients_of`] wrote on `rank` for a model with the same parameters, onto the devices of `model`.
pub(super) fn read_gradients<M: Module>(
    model: &M,
    gradients: &[u8],
    rank: usize,
) -> Result<GradientsParams, RanksError> {
    let mut read = ReadGradients {
        from: Reader(gradients),
        number: 0,
        gradients: GradientsParams::new(),
        broken: false,
    };
    model.visit(&mut read);
    if read.broken || !read.from.0.is_empty() {
        return Err(RanksError::Message { rank });
    }
    Ok(read.gradients)
}

struct ReadGradients<'a> {
    from: Reader<'a>,
    number: u64,
    gradients: GradientsParams,
    broken: bool,
}

impl ModuleVisitor for ReadGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut from = Reader(self.from.0);
        if from.number() == Some(self.number) {
            match from.tensor(&param.lazy_shape()) {
                Some(data) => {
                    let device = param.lazy_device().inner();
                    let gradient = Tensor::<D>::from_data(data, &device);
                    self.gradients.register::<D>(param.id, gradient);
                    self.from = from;
                }
                None => self.broken = true,
            }
        }
        self.number += 1;
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_ne_bytes());
    }

    fn float(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// The rest of a message. Everything is `None` if the message is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_bits(self.number()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.size()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.bytes()?).ok()?.to_string())
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.size()?;
        (0..count).map(|_| one(self)).collect()
    }

    /// 32-bit floats of this shape.
    fn tensor(&mut self, shape: &[usize]) -> Option<TensorData> {
        let bytes = self.bytes()?;
        let count = shape.iter().product::<usize>();
        let fits = bytes.len() == count * size_of::<f32>();
        fits.then(|| TensorData::from_bytes_vec(bytes.to_vec(), shape.to_vec(), DType::F32))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;

    fn commands() -> Vec<Command> {
        let round = |values: Option<Vec<u8>>, batches| {
            Command::Gradients(Round {
                step: 3,
                random: u64::MAX,
                first: 4,
                values,
                batches,
            })
        };
        let batch = MicroBatch {
            examples: vec![2, 0, 7],
            divisors: Divisors {
                terms: 3.000_1,
                batches: 1.0,
            },
        };
        vec![
            Command::Begin,
            Command::Compare,
            round(None, vec![batch]),
            round(Some(vec![1, 2]), Vec::new()),
            Command::Evaluate { values: vec![9] },
            Command::Done,
            Command::Leave,
        ]
    }

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Identity(Identity {
                version: "1".to_string(),
                data: "two".to_string(),
                base: String::new(),
                trains: "drei".to_string(),
            }),
            Reply::Gradients {
                tokens: 5,
                loss: 0.1,
                gradients: vec![0; 9],
            },
            Reply::NotFinite(f32::INFINITY),
            Reply::Parts(vec![vec![0.1, -0.0], Vec::new()]),
        ]
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_damaged_ones_are_errors() {
        for command in commands() {
            let message = command.write();
            assert_eq!(Command::read(&message), Ok(command));
            for length in 0..message.len() {
                assert!(Command::read(&message[..length]).is_err());
            }
            assert!(Command::read(&[message, vec![0]].concat()).is_err());
        }
        for reply in replies() {
            let message = reply.write();
            assert_eq!(Reply::read(&message, 2), Ok(reply));
            for length in 0..message.len() {
                let error = Err(RanksError::Message { rank: 2 });
                assert_eq!(Reply::read(&message[..length], 2), error);
            }
        }
        let failed = Reply::Failed("no memory".to_string()).write();
        let error = Reply::read(&failed, 3).unwrap_err();
        assert_eq!(error.to_string(), "rank 3: no memory");
    }

    fn model(device: &Device) -> Linear {
        LinearConfig::new(3, 2).init(device)
    }

    #[test]
    fn gradients_and_values_arrive_with_the_same_bytes() {
        let device = mtlora_core::devices()[0].device.clone().autodiff();
        let (there, here) = (model(&device), model(&device));
        let x = Tensor::<2>::from_data([[1.0, -2.0, 0.3]], &device);
        let found = || {
            let loss = there.forward(x.clone()).square().sum();
            GradientsParams::from_grads(loss.backward(), &there)
        };
        let sent = gradients_of(&there, found()).unwrap();
        let arrived = read_gradients(&here, &sent, 1).unwrap();
        let wanted = found();
        let mut own = arrived;
        let weight = own.remove::<2>(here.weight.id).unwrap().into_data();
        assert_eq!(
            Some(weight),
            wanted.get::<2>(there.weight.id).map(Tensor::into_data)
        );
        let ids = (
            there.bias.as_ref().unwrap().id,
            here.bias.as_ref().unwrap().id,
        );
        let bias = own.remove::<1>(ids.1).unwrap().into_data();
        assert_eq!(Some(bias), wanted.get::<1>(ids.0).map(Tensor::into_data));
        assert!(read_gradients(&here, &sent[1..], 1).is_err());

        // A parameter without a gradient is left out.
        let mut some = found();
        some.remove::<2>(there.weight.id);
        let sent = gradients_of(&there, some).unwrap();
        let arrived = read_gradients(&here, &sent, 1).unwrap();
        assert!(arrived.get::<2>(here.weight.id).is_none());
        assert!(arrived.get::<1>(ids.1).is_some());

        let values = values_of(&there).unwrap();
        let read = read_values(&values, &shapes_of(&here)).unwrap();
        assert_eq!(read, state(&there, |_, _| true));
        assert!(read_values(&values[8..], &shapes_of(&here)).is_err());
    }
}
